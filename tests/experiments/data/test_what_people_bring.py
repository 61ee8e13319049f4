"""Files and objects that people bring, whole ones: what becomes of each, exactly."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas
import pytest
import torch
from brought import CELLS, COUNTS, FRAME, RGB, TYPES, Items, csv_of, h5ad, it, npy, npz, pictures, text
from scipy import sparse
from torch.utils.data import DataLoader, TensorDataset

from dlvm.experiments.data import Splits, from_file, from_tensor

NAN = float("nan")
TABLE = "cell,g1,g2,type\nc1,1,2,T\nc2,3,4,B\nc3,5,6,T\nc4,7,8,B\n"
X = [[1, 2], [3, 4], [5, 6], [7, 8]]
PICTURES = ["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"]
GREY = RGB[..., 0].reshape(4, -1) / 255
GREYS = (RGB / 255).transpose(0, 3, 1, 2).reshape(4, -1)


class Whole(NamedTuple):
    """What is made, how it is read, the rows that come out in whatever order, and what else is known of them."""

    made: Any
    how: dict[str, Any]
    x: Any
    known: dict[str, Any]


WHOLE = {
    "commas, no names": Whole(text("1,2\n3,4\n5,6\n7,8\n"), {}, X, {"columns": None, "kind": "count"}),
    "semicolons and decimal commas": Whole(
        text("a;b\n1,5;2\n2,5;3\n-3,25;4\n"), {}, [[1.5, 2], [2.5, 3], [-3.25, 4]],
        {"columns": ("a", "b"), "kind": "real"},
    ),
    "semicolons and decimal points": Whole(text("1.5;2\n2.5;3\n3;4\n"), {}, [[1.5, 2], [2.5, 3], [3, 4]], {}),
    "tabs": Whole(text("a\tb\n1\t2\n3\t4\n5\t6\n", "x.tsv"), {}, X[:3], {"columns": ("a", "b")}),
    "tabs in a file called csv": Whole(text("a\tb\n1\t2\n3\t4\n5\t6\n"), {}, X[:3], {"columns": ("a", "b")}),
    "blanks": Whole(text("  1.0  2.0\n  3.0  4.0\n  5.0  6.0\n", "x.txt"), {}, X[:3], {}),
    "pipes": Whole(text("a|b\n1|2\n3|4\n5|6\n"), {}, X[:3], {"columns": ("a", "b")}),
    "one column": Whole(text("a\n1\n2\n3\n"), {}, [[1], [2], [3]], {"columns": ("a",)}),
    "byte order mark, carriage returns, empty lines": Whole(
        text("\ufeffa,b\r\n1,2\r\n\r\n3,4\r\n5,6\r\n"), {}, X[:3], {"columns": ("a", "b")}
    ),
    "quoted cells, with commas in them": Whole(
        text('"a, mg","b"\n"1","2"\n3,"4"\n5,6\n'), {}, X[:3], {"columns": ("a, mg", "b")}
    ),
    "ids and classes": Whole(
        text(TABLE), {"index_column": "cell", "label_column": "type"}, X,
        {"columns": ("g1", "g2"), "label_names": ("B", "T"), "ids": CELLS, "classes": [1, 0, 1, 0], "kind": "count"},
    ),
    "columns chosen, in another order": Whole(
        text(TABLE), {"columns": ["g2", "g1"]}, [row[::-1] for row in X], {"columns": ("g2", "g1"), "ids": None}
    ),
    "columns left out": Whole(text(TABLE), {"drop_columns": ["cell", "type", "g1"]}, [[2], [4], [6], [8]], {}),
    "the index that pandas writes": Whole(
        csv_of(FRAME), {"label_column": "type"}, COUNTS, {"ids": CELLS, "columns": ("g1", "g2", "g3")}
    ),
    "the counting index that pandas writes": Whole(
        csv_of(FRAME.reset_index(drop=True)), {"label_column": "type"}, COUNTS, {"ids": list("0123")}
    ),
    "columns that pandas names 0, 1, 2": Whole(
        csv_of(pandas.DataFrame(COUNTS), index=False), {}, COUNTS, {"columns": ("0", "1", "2")}
    ),
    "classes that are numbers": Whole(
        text("a,y\n1,0.0\n2,1.0\n3,1.0\n"), {"label_column": "y"}, [[1], [2], [3]],
        {"classes": [0, 1, 1], "label_names": None},
    ),
    "missing by codes, words and empty cells": Whole(
        text("a,b\n1,-200\nNA,4\n5,\n7,8\n"), {"missing": ["-200", "NA"]}, [[1, NAN], [NAN, 4], [5, NAN], [7, 8]],
        {"has_missing": True, "kind": "count"},
    ),
    "air quality as it is published": Whole(
        text("Date;CO;T;;\n10/03/2004;2,6;13,6;;\n10/03/2004;2;-200;;\n11/03/2004;2,2;11,9;;\n;;;;\n"),
        {"drop_columns": ["Date"], "missing": ["-200"]}, [[2.6, 13.6], [2, NAN], [2.2, 11.9]], {"columns": ("CO", "T")},
    ),
    "a column that never changes": Whole(text("a,b\n1,5\n2,5\n3,5\n"), {}, [[1, 5], [2, 5], [3, 5]], {"kind": "count"}),
    "zeros and ones": Whole(npy(np.eye(4, dtype=bool)), {}, np.eye(4), {"kind": "binary", "image_shape": None}),
    "levels of 8 bits, flat": Whole(npy(RGB.reshape(4, -1)), {}, RGB.reshape(4, -1), {"kind": "count"}),
    "grey images": Whole(npy(RGB[..., 0]), {}, GREY, {"kind": "grey", "image_shape": (2, 3)}),
    "images left alone": Whole(npy(RGB[..., 0]), {"scale": 1}, RGB[..., 0].reshape(4, -1), {"kind": "image"}),
    "images, channels last": Whole(npy(RGB), {}, GREYS, {"kind": "image", "image_shape": (3, 2, 3)}),
    "images, channels first": Whole(npy(RGB.transpose(0, 3, 1, 2)), {}, GREYS, {"image_shape": (3, 2, 3)}),
    "images of one channel": Whole(npy(RGB[..., :1]), {}, GREY, {"image_shape": (1, 2, 3)}),
    "binary images in 8 bits": Whole(npy(np.eye(6, dtype="u1").reshape(6, 2, 3)), {}, np.eye(6), {"kind": "binary"}),
    "data and classes": Whole(npz(x=COUNTS, y=TYPES), {}, COUNTS, {"classes": [1, 0, 1, 0], "label_names": ("B", "T")}),
    "names in arrays": Whole(
        npz(data=COUNTS, columns=["u", "v", "w"], ids=CELLS, label_names=["no", "yes"], labels=[0, 1, 1, 0]), {},
        COUNTS,
        {"columns": ("u", "v", "w"), "ids": CELLS, "classes": [0, 1, 1, 0], "label_names": ("no", "yes")},
    ),
    "covariates": Whole(npz(x=COUNTS, dose=np.arange(4.0)), {}, COUNTS, {"more": ["dose"]}),
    "a sparse matrix": Whole(it(sparse.csr_matrix(COUNTS)), {}, COUNTS, {"kind": "count"}),
    "a sparse array": Whole(it(sparse.coo_array(COUNTS)), {}, COUNTS, {"kind": "count"}),
    "a frame": Whole(it(FRAME), {"label_column": "type"}, COUNTS, {"ids": CELLS, "label_names": ("B", "T")}),
    "a frame of truth values and of numbers that may be missing": Whole(
        it(pandas.DataFrame({"a": [True, False, True], "b": pandas.array([1, None, 0], "Int64")})), {"missing": ["NA"]},
        [[1, 1], [0, NAN], [1, 0]], {"kind": "binary", "ids": None},
    ),
    "a masked array": Whole(
        it(np.ma.masked_equal(COUNTS, 5)), {"missing": ["nan"]}, np.where(COUNTS == 5, NAN, COUNTS),
        {"has_missing": True},
    ),
    "a data set": Whole(
        it(TensorDataset(torch.tensor(COUNTS), torch.tensor([1, 0, 1, 0]))), {}, COUNTS, {"classes": [1, 0, 1, 0]}
    ),
    "a data set of dicts": Whole(
        it(Items([{"x": row, "dose": 0.5 * k} for k, row in enumerate(COUNTS)])), {}, COUNTS, {"more": ["dose"]}
    ),
    "a loader": Whole(it(DataLoader(TensorDataset(torch.tensor(COUNTS)), 3)), {}, COUNTS, {"classes": None}),
    "images in folders of classes": Whole(
        pictures(cat__1=RGB[0], cat__2=RGB[1], dog__1=RGB[2], dog__2=RGB[3]), {}, GREYS,
        {"label_names": ("cat", "dog"), "classes": [0, 0, 1, 1], "ids": PICTURES},
    ),
    "a folder of grey images": Whole(
        pictures(a=RGB[0, ..., 0], b=RGB[1, ..., 0], c=RGB[3, ..., 0]), {}, GREY[[0, 1, 3]],
        {"image_shape": (2, 3), "classes": None},
    ),
    "annotated, in rows": Whole(
        h5ad(), {"label_column": "type"}, COUNTS,
        {"columns": ("g1", "g2", "g3"), "ids": CELLS, "classes": [1, 0, 1, 0], "label_names": ("B", "T")},
    ),
    "annotated, in columns": Whole(h5ad("csc"), {"columns": ["g3", "g1"]}, COUNTS[:, [2, 0]], {"ids": CELLS}),
    "annotated, dense": Whole(h5ad("dense"), {"drop_columns": ["g2"]}, COUNTS[:, [0, 2]], {"columns": ("g1", "g3")}),
    "a layer": Whole(h5ad(), {"key": "doubled"}, 2 * COUNTS, {"classes": None}),
}  # fmt: skip


def read(made: Any, **how: Any) -> Splits:
    return (from_file if hasattr(made, "is_dir") else from_tensor)(made, valid=1, test=1, **how)


@pytest.mark.parametrize("case", WHOLE)
def test_what_is_whole_comes_out_as_it_went_in(case, tmp_path):
    made, how, x, known = WHOLE[case]
    splits = read(made(tmp_path), **how)
    assert [part.num_data for part in splits] == [len(x) - 2, 1, 1]
    found = torch.cat([part.x for part in splits]).numpy()
    expected = np.asarray(x, np.float32)
    rows = [next(k for k, row in enumerate(expected) if np.array_equal(row, mine, equal_nan=True)) for mine in found]
    assert sorted(rows) == list(range(len(x)))
    train = splits.train
    ids, classes = known.get("ids", ...), known.get("classes", ...)
    if ids is not ...:
        assert (
            [part.index for part in splits] == [None] * 3 if ids is None else _joined(splits) == [ids[k] for k in rows]
        )
    if classes is not ...:
        said = None if train.labels is None else torch.cat([part.labels for part in splits]).tolist()
        assert said == (None if classes is None else [classes[k] for k in rows])
    for name in set(known) - {"ids", "classes", "more"}:
        assert getattr(train, name) == known[name], name
    assert sorted(train.more) == known.get("more", [])


def _joined(splits: Splits) -> list[str]:
    return [name for part in splits for name in part.index]


PARTS = {
    "a column of words": (
        text("a,split\n1,train\n2,Training\n3,val\n4,test\n5,test\n"), {"split_column": "split"}, [[1, 2], [3], [4, 5]]
    ),
    "images and classes in two parts": (
        npz(train_images=RGB, train_labels=[0, 1, 0, 1], test_images=RGB[:1], test_labels=[1]), {}, None
    ),
    "x_train, x_valid, x_test": (
        npz(x_train=[[1.0], [2.0]], x_valid=[[3.0]], x_test=[[4.0], [5.0]]), {}, [[1, 2], [3], [4, 5]]
    ),
    "train, valid, test": (npz(test=[[4], [5]], train=[[1], [2]], valid=[[3]]), {}, [[1, 2], [3], [4, 5]]),
}  # fmt: skip


@pytest.mark.parametrize("case", PARTS)
def test_parts_that_a_file_gives_are_kept(case, tmp_path):
    made, how, parts = PARTS[case]
    splits = from_file(made(tmp_path), valid=1, **how)
    if parts is None:  # validation is cut from training
        assert [part.num_data for part in splits] == [3, 1, 1] and splits.test.labels.tolist() == [1]
        assert np.array_equal(splits.test.x, GREYS[:1].astype(np.float32))
    else:
        assert [sorted(part.x.flatten().tolist()) for part in splits] == parts


def test_images_in_folders_of_parts_are_those_parts(tmp_path):
    made = pictures(train__cat__1=RGB[0], train__dog__1=RGB[1], train__dog__2=RGB[2], test__dog__1=RGB[3])(tmp_path)
    splits = from_file(made, valid=1)
    assert splits.test.index == ("test/dog/1.png",) and splits.test.labels.tolist() == [1]
    assert set(splits.train.index + splits.valid.index) == {"train/cat/1.png", "train/dog/1.png", "train/dog/2.png"}
    assert splits.train.label_names == ("cat", "dog")


def test_sequences_of_parts_are_filled_up_to_the_longest(tmp_path):
    rolls = {"train": np.ones((2, 3, 4), np.uint8), "valid": np.ones((1, 5, 4), np.uint8), "test": np.ones((1, 2, 4))}
    lengths = {f"{part}_lengths": np.full(len(roll), roll.shape[1]) for part, roll in rolls.items()}
    train, valid, test = from_file(npz(**rolls, **lengths)(tmp_path))
    assert [part.kind for part in (train, valid, test)] == ["sequence"] * 3
    assert train.x.shape == (2, 5, 4) and train["lengths"].tolist() == [3, 3]
    assert train.x.sum() == 2 * 3 * 4 and not train.x[:, 3:].any()
    assert torch.equal(train.mean, torch.ones(4))  # of the steps that are there
    with pytest.raises(
        ValueError, match="x holds sequences, .* a sequence model takes it; got x of shape .2, 5, 4.|x holds"
    ):
        train.x_dim  # noqa: B018  # what a model of a plain matrix asks first


def test_a_parquet_file_is_read_as_the_frame_in_it(tmp_path, monkeypatch):
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr(pandas, "read_parquet", lambda path: FRAME)
    mine, theirs = (
        from_file(tmp_path / "x.parquet", label_column="type").train,
        from_tensor(FRAME, label_column="type").train,
    )
    assert torch.equal(mine.x, theirs.x) and mine.index == theirs.index and mine.label_names == ("B", "T")
