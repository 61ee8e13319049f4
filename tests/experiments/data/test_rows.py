"""Named, row-aligned tensors in a loader: batches as a model's arguments, missing entries, kinds."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from dlvm.experiments.data import Loader, from_file, from_tensor
from dlvm.experiments.data.rows import Rows, tell_kind

X = torch.arange(20.0).reshape(10, 2)


def labelled(**how) -> Loader:
    return Loader(X / 20, 4, labels=torch.arange(10), more={"dose": X[:, 0], "lengths_of": torch.arange(10)}, **how)


@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_hold_the_same_rows_of_each_tensor_in_the_order_asked_for(shuffle):
    loader = labelled(shuffle=shuffle).giving("y", "x", "dose")
    batches = list(loader)
    assert [len(batch) for batch in batches] == [3, 3, 3] and loader.given == ("y", "x", "dose")
    for y, x, dose in batches:
        assert torch.equal(x, X[y] / 20) and torch.equal(dose, X[y, 0])
    seen = torch.cat([y for y, _, _ in batches])
    assert sorted(seen.tolist()) == list(range(10)) and (seen.tolist() == list(range(10))) is not shuffle


@pytest.mark.parametrize("dynamic", [False, True])
def test_x_is_shuffled_and_drawn_alike_whatever_lies_beside_it(dynamic):
    loader = labelled(shuffle=True, dynamic=dynamic, seed=3)
    alone = [x for (x,) in loader.giving("x")]
    beside = [x for _, x in loader.giving("y", "x")]
    assert all(torch.equal(a, b) for a, b in zip(alone, beside, strict=True))
    assert all(torch.equal(a, b) for a, (b,) in zip(alone, loader, strict=True))


def test_a_view_has_a_stream_of_its_own():
    loader = labelled(shuffle=True)
    first = [y.tolist() for (y,) in loader.giving("y")]
    list(loader)
    assert [y.tolist() for (y,) in loader.giving("y")] == first


def test_examples_are_the_first_rows_of_what_a_batch_holds():
    loader = labelled(dynamic=True).giving("x", "y")
    x, y = loader.examples
    assert torch.equal(x, loader.example) and y.tolist() == [0, 1, 2, 3]
    assert loader.first(6).shape == (6, 2)


def test_the_first_rows_lie_in_the_order_of_their_labels_whatever_the_order_of_batches():
    loader = labelled(shuffle=True)
    assert torch.equal(loader.first(10), loader.x) and loader["y"].tolist() == list(range(10))
    assert loader.shuffle and torch.equal(loader.first(4), loader.x[:4])


def test_parts_of_a_loader_keep_what_belongs_to_the_rows():
    loader = labelled(columns=("a", "b"), index=tuple("abcdefghij"), label_names=tuple("ABCDEFGHIJ")).giving("y")
    part = loader.take(3)
    assert part.index == ("a", "b", "c") and part["dose"].tolist() == [0, 2, 4] and part.given == ("y",)
    assert (
        part.columns == ("a", "b") and part.label_names == loader.label_names and part.more["lengths_of"].numel() == 3
    )


def test_what_is_not_there_is_named_with_what_is():
    with pytest.raises(
        ValueError, match=r"name must be one of the data's tensors, x, got 'y': labels come by --label-col"
    ):
        Loader(X).giving("x", "y")
    with pytest.raises(ValueError, match="x, dose, lengths_of, y, got 'mask'"):
        labelled()["mask"]
    with pytest.raises(ValueError, match="each once"):
        labelled().giving("x", "x")


def test_missing_entries_are_left_out_of_the_mean_and_of_the_mask():
    x = X.clone()
    x[0, 0] = x[1, 0] = float("nan")
    loader = Loader(x, missing=True)
    assert loader.has_missing and not Loader(X).has_missing
    torch.testing.assert_close(loader.mean, torch.tensor([X[2:, 0].mean(), X[:, 1].mean()]))
    assert loader["mask"].sum() == 18 and not loader["mask"][0, 0]
    with pytest.raises(ValueError, match="got 2 NaN or inf, the first at row 0, column 0"):
        Loader(x)


@pytest.mark.parametrize(
    ("x", "image_shape", "kind"),
    [
        ([[0, 1], [1, 0]], None, "binary"),
        ([[0, 0.5], [1, 0]], None, "grey"),
        ([[0, 0.5, 1]], (3, 1, 1), "image"),
        ([[0, 0, 1]], (3, 1, 1), "binary"),
        ([[0, 7], [255, 0]], (1, 2), "image"),
        ([[0, 7], [3, 0]], None, "count"),
        ([[0, 7.5], [3, 0]], None, "real"),
        ([[0, -1], [1, 0]], None, "real"),
    ],
)
def test_the_kind_is_told_from_the_numbers(x, image_shape, kind):
    assert Loader(torch.tensor(x, dtype=torch.float32), image_shape=image_shape).kind == kind


def test_one_part_does_not_tell_the_kind_alone():
    x = torch.zeros(10, 2)
    x[3, 1] = 7  # in one part of three
    assert {part.kind for part in from_tensor(x, valid=3, test=3)} == {"count"}
    assert from_tensor(x / 7, binarize="dynamic").train.kind == "binary"
    assert from_tensor(x, kind="real").train.kind == "real"
    assert Loader(x).take(2).kind == "count"


def test_many_chunks_are_looked_at():
    x = torch.zeros(9000, 1)
    x[-1] = 0.25
    assert tell_kind(Rows(x)) == "grey"


def test_sequences_are_no_matrix():
    rolls = Loader(torch.rand(4, 5, 3), kind="sequence", more={"lengths": torch.tensor([1, 5, 2, 2])})
    tokens = Loader(torch.randint(0, 5, (4, 6)), kind="sequence", vocabulary=tuple("abcde"))
    assert rolls.kind == tokens.kind == "sequence" and tokens["tokens"].dtype == torch.int64
    steps = torch.cat([row[:n] for row, n in zip(rolls.x, rolls["lengths"].tolist(), strict=True)])
    torch.testing.assert_close(rolls.mean, steps.mean(0))
    torch.testing.assert_close(Loader(rolls.x, kind="sequence").mean, rolls.x.mean((0, 1)))
    for loader in (rolls, tokens):
        with pytest.raises(ValueError, match="holds sequences, .*: a sequence model takes it; got x of shape"):
            loader.x_dim  # noqa: B018  # what a model of a plain matrix asks first
    with pytest.raises(ValueError, match="holds tokens.* they have no mean"):
        tokens.mean  # noqa: B018  # the same


SAID = {
    "images are read as (rows, height, width, channels), (4, 2, 3, 3), and kept channels first": (
        "said_nhwc.npy", np.arange(72, dtype=np.uint8).reshape(4, 2, 3, 3), {}
    ),
    "images of 8 bits are divided by 255 (--scale 1 leaves them as they are)": (
        "said_8bits.npy", np.arange(24, dtype=np.uint8).reshape(4, 2, 3), {}
    ),
    "cells are separated by ';'": ("said_separator.csv", "a;b\n1;2\n3;4\n5;6\n", {}),
    "a comma in a number is read as the decimal point": ("said_comma.csv", "a;b\n1,5;2\n3;4\n5;6\n", {}),
    "2 of 6 entries are missing, in 2 rows and 1 columns": (
        "said_missing.csv", "a,b\n1,NA\n3,\n5,6\n", {"missing": ["NA"]}
    ),
    "no entry is missing, though --missing NA would tell one": (
        "said_none.csv", "a,b\n1,2\n3,4\n5,6\n", {"missing": ["NA"]}
    ),
    "column 1 has no name and counts the rows": ("said_index.csv", ",a\n0,5\n1,6\n2,8\n", {}),
    "valid and test cut from the training rows": (
        "said_parts.csv", "a,s\n1,train\n2,train\n3,train\n", {"split_column": "s"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("line", SAID)
def test_what_is_done_unasked_is_said(line, tmp_path, caplog):
    name, content, how = SAID[line]
    if isinstance(content, str):
        (tmp_path / name).write_text(content)
    else:
        np.save(tmp_path / name, content)
    with caplog.at_level(logging.INFO, "dlvm"):
        from_file(tmp_path / name, valid=1, test=1, **how)
    assert line in caplog.text
