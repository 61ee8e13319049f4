"""Sequences that people bring: tables with a line for each step, lists of arrays, archives, and text."""

from __future__ import annotations

import json

import numpy as np
import pandas
import pytest
import torch

from dlvm.experiments.data import Splits, describe, from_file, from_tensor, load, read_alike

NAN = float("nan")
ROWS = [f"s{k},{t},{10 * k + t},{t}" for k in range(8) for t in range(k % 3 + 1)]
LONG = "id,t,a,b\n" + "\n".join(ROWS) + "\n"
STEPS = {"sequence_column": "id", "time_column": "t"}
NAMES = ["anna", "bob", "cara", "dan", "eve", "flo", "gus", "hal", "ida", "jo"]


def sequences(splits: Splits) -> dict[str, list]:
    """{name: its steps within its length}, of all parts."""
    found = {}
    for part in splits:
        for name, x, length in zip(part.index, part.x, part["lengths"], strict=True):
            assert not x[length:].any()
            found[name] = x[:length].tolist()
    return found


@pytest.mark.parametrize("order", ["as they are", "by time", "at random"])
def test_steps_of_one_id_are_a_sequence_wherever_their_lines_are(tmp_path, order):
    rows = list(ROWS)
    if order == "by time":
        rows.sort(key=lambda row: row.split(",")[1])
    if order == "at random":
        np.random.default_rng(0).shuffle(rows)
    (tmp_path / "x.csv").write_text("id,t,a,b\n" + "\n".join(rows))
    splits = from_file(tmp_path / "x.csv", **STEPS)
    expected = {f"s{k}": [[10.0 * k + t, t] for t in range(k % 3 + 1)] for k in range(8)}
    assert sequences(splits) == expected and splits.train.columns == ("a", "b") and splits.train.kind == "sequence"
    frame = from_tensor(pandas.read_csv(tmp_path / "x.csv"), **STEPS)
    assert sequences(frame) == expected and torch.equal(frame.train["times"], splits.train["times"])


def test_times_are_counted_from_the_first_step_of_a_sequence_without_loss(tmp_path):
    start = 1_700_000_000
    lines = [f"{k},{start + k + t},{t}" for k in range(10) for t in (0, 0.25, 7)]
    (tmp_path / "x.csv").write_text("id,t,a\n" + "\n".join(lines))
    train = from_file(tmp_path / "x.csv", **STEPS).train
    assert all(row == [0, 0.25, 7] for row in train["times"].tolist())
    lines = [f"{k},2024-02-{28 + t}T12:00,{t}" for k in range(10) for t in (0, 1)]
    (tmp_path / "x.csv").write_text("id,t,a\n" + "\n".join(lines))
    assert all(row == [0, 86400] for row in from_file(tmp_path / "x.csv", **STEPS).train["times"].tolist())


def test_steps_that_lack_are_missing_where_a_time_step_is_given(tmp_path):
    lines = [f"{k},{t},{t}" for k in range(10) for t in (0, 0.5, 2)]
    (tmp_path / "x.csv").write_text("id,t,a\n" + "\n".join(lines))
    splits = from_file(tmp_path / "x.csv", **STEPS, time_step=0.5, missing=("NA",))
    np.testing.assert_array_equal(splits.test.x[0, :, 0], [0, 0.5, NAN, NAN, 2])
    assert splits.test.has_missing and splits.test["lengths"].tolist() == [5]
    with pytest.raises(ValueError, match="2 steps of time_step 0.5 lack between line 2 and line 4, .* --missing NA"):
        from_file(tmp_path / "x.csv", **STEPS, time_step=0.5)
    with pytest.raises(ValueError, match="line 3: the time lies 0.5 behind the first .* no multiple of time_step 2"):
        from_file(tmp_path / "x.csv", **STEPS, time_step=2, missing=("NA",))


@pytest.mark.parametrize(
    "text, how, said",
    [
        ("id,t,a\nx,0,1\nx,0,2\n", STEPS, "line 2 and line 3 are of one sequence and have one time, 0"),
        ("id,t,a\nx,0,1\nx,soon,2\n", STEPS, "line 3: time_column 't' must hold numbers, or dates as .* got 'soon'"),
        ("id,t,a\nx,nan,1\nx,1,2\n", STEPS, "line 2: time_column 't' must hold a time for each step, got nan"),
        ("id,t,a\nx,0,1\n,1,2\n", STEPS, "line 3: sequence_column is empty"),
        ("id,t,a\nx,0,1\nx,1,\n", STEPS, "line 3, column 3: expected a number, got ''"),
        ("id,a,y\nx,0,u\nx,1,v\n", {"sequence_column": "id", "label_column": "y"}, "one label, got 'u' in line 2"),
        ("id,a\nx,0\nx,1\n", {"sequence_column": "id", "index_column": "a"}, "leave one of them out"),
        ("id,a\nx,0\nx,1\n", {"time_column": "a"}, r"time_column \(--time-column\) needs sequence_column"),
    ],
)  # fmt: skip
def test_what_no_sequence_can_be_made_of_is_refused_with_its_line(tmp_path, text, how, said):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ValueError, match=said):
        from_file(tmp_path / "x.csv", **how)


def test_lists_of_arrays_are_sequences():
    arrays = [np.full((k % 4 + 1, 2), k) for k in range(10)]
    x = from_tensor([torch.from_numpy(a).float() for a in arrays], index=[str(k) for k in range(10)])
    assert sequences(x) == {str(k): arrays[k].tolist() for k in range(10)}
    assert from_tensor([a[:, 0] * 0.5 for a in arrays]).train.x.shape == (8, 4, 1)
    with pytest.raises(ValueError, match=r"at least one step, got none in 1 \(from 0\)"):
        from_tensor([arrays[0], arrays[1][:0]])
    with pytest.raises(ValueError, match=r"steps of shapes \[\(2,\), \(3,\)\]"):
        from_tensor([np.zeros((2, 2)), np.zeros((2, 3))])


def test_what_lies_behind_the_ends_in_an_archive_is_let_go(tmp_path):
    lengths = np.array([1, 2, 5, 3] * 5)
    x = np.where(np.arange(5)[:, None] < lengths[:, None, None], 1.0, NAN) * np.ones((20, 5, 3))
    np.savez(tmp_path / "x.npz", x=x, lengths=lengths)
    train = from_file(tmp_path / "x.npz").train
    assert not train.x.isnan().any() and torch.equal(train.x.sum((1, 2)), 3.0 * train["lengths"])
    np.savez(tmp_path / "x.npz", x=x, lengths=lengths + 1)
    with pytest.raises(ValueError, match="lengths must be from 1 to 5, the steps that there are, got 2 to 6"):
        from_file(tmp_path / "x.npz")


def test_new_sequences_are_read_like_those_of_training(tmp_path):
    (tmp_path / "x.csv").write_text(LONG)
    known = json.loads(json.dumps(describe(from_file(tmp_path / "x.csv", **STEPS).train)))
    (tmp_path / "new.csv").write_text(
        "b,id,other,a,t\n1,u,9,2,0\n3,u,9,4,1\n" + "".join(f"0,v,9,{t},{t}\n" for t in range(9))
    )
    new = read_alike(tmp_path / "new.csv", known)
    assert new.index == ("u", "v") and new["lengths"].tolist() == [2, 9] and new.columns == ("a", "b")
    assert new.x[0, :2].tolist() == [[2, 1], [4, 3]]
    listed = read_alike([np.ones((2, 2)), np.zeros((5, 2))], known)
    assert listed["lengths"].tolist() == [2, 5]
    with pytest.raises(ValueError, match="must name a column of .*new.csv, got 'id'"):
        (tmp_path / "new.csv").write_text("a,b\n1,2\n")
        read_alike(tmp_path / "new.csv", known)


def test_text_is_read_by_the_alphabet_of_training_which_names_what_it_lacks(tmp_path):
    (tmp_path / "x.txt").write_text("\n".join(NAMES) + "\n\n")
    splits = from_file(tmp_path / "x.txt", lines=True)
    known = json.loads(json.dumps(describe(splits.train)))
    place = {piece: k for k, piece in enumerate(known["vocabulary"])}
    (tmp_path / "new.txt").write_text("adele\nbob\n")
    for new in (read_alike(tmp_path / "new.txt", known), read_alike(["adele", "bob"], known)):
        assert new["lengths"].tolist() == [6, 4] and new.x[1].tolist() == [*(place[c] for c in "bob"), 0, 0, 0]
        assert new.vocabulary == splits.train.vocabulary
    (tmp_path / "new.txt").write_text("bob\nroxy\n")
    with pytest.raises(ValueError, match="new.txt, line 2: 'x' at place 3 is not in the alphabet of the training data"):
        read_alike(tmp_path / "new.txt", known)
    table = "name,sex\n" + "\n".join(f"{name},{'fm'[k % 2]}" for k, name in enumerate(NAMES))
    (tmp_path / "x.csv").write_text(table)
    other = from_file(tmp_path / "x.csv", text_column="name", label_column="sex")
    assert torch.equal(other.train.x, splits.train.x) and other.train.label_names == ("f", "m")
    assert read_alike(tmp_path / "x.csv", describe(other.train))["lengths"].tolist() == [len(n) + 1 for n in NAMES]


def test_pieces_of_several_characters_are_told_from_their_beginnings():
    vocabulary = ("<end>", "C", "Cl", "l", "[nH]")
    described = {**describe(from_tensor(NAMES).train), "vocabulary": list(vocabulary)}
    assert read_alike(["ClC[nH]l"], described).x.tolist() == [[2, 1, 4, 3, 0]]


def test_names_are_read_back_from_a_file(tmp_path):
    try:
        train = load("names").train
    except FileNotFoundError:
        pytest.skip("names are in neither data/ nor ../shared/data")
    (tmp_path / "new.txt").write_text("emma\n")
    new = read_alike(tmp_path / "new.txt", describe(train))
    assert [train.vocabulary[token] for token in new.x[0]] == [*"emma", "<end>"]
