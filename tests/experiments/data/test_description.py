"""New files are read like those that were trained on, by the names of their columns."""

from __future__ import annotations

import json
import logging

import numpy as np
import pandas
import pytest
import torch
from brought import COUNTS, FRAME, RGB, h5ad, npy, pictures

from dlvm.experiments.data import Loader, describe, digits, from_file, from_tensor, load, read_alike

TABLE = "cell,g1,g2,type\nc1,1,2,T\nc2,3,4,B\nc3,5,6,T\nc4,7,8,B\n"


@pytest.fixture
def trained(tmp_path) -> dict:
    (tmp_path / "train.csv").write_text(TABLE)
    train = from_file(tmp_path / "train.csv", index_column="cell", label_column="type", valid=1, test=1).train
    return json.loads(json.dumps(describe(train)))


def write(tmp_path, content: str):
    (tmp_path / "new.csv").write_text(content)
    return tmp_path / "new.csv"


def test_columns_are_found_by_name_in_any_order_and_file(trained, tmp_path):
    new = read_alike(
        write(tmp_path, "type;g2;cell;g1\nB;20;n1;1,5\nT;40;n2;30\nB;2;n3;1\n".replace(",", ".")),
        {**trained, "kind": "real"},
    )
    assert new.x.tolist() == [[1.5, 20], [30, 40], [1, 2]] and new.columns == ("g1", "g2")
    assert new.index == ("n1", "n2", "n3") and new.labels.tolist() == [0, 1, 0] and not new.shuffle
    frame = read_alike(pandas.DataFrame({"g2": [2, 4], "g1": [1, 3]}, index=["a", "b"]), trained)
    assert frame.x.tolist() == [[1, 2], [3, 4]] and frame.index == ("a", "b") and frame.labels is None


def test_columns_without_names_are_found_by_their_places(tmp_path):
    lines = "1,7,2\n3,7,4\n5,8,6\n7,8,8\n"
    train = from_file(write(tmp_path, lines), label_column="column 2", valid=1, test=1).train
    assert train.columns == ("column 1", "column 3")
    new = read_alike(write(tmp_path, lines), describe(train))
    assert new.x.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]] and new.labels.tolist() == [7, 7, 8, 8]
    with pytest.raises(ValueError, match=r"must have rows of shape \(2,\) as in training, got \(1,\)"):
        read_alike(write(tmp_path, "1,2\n3,4\n"), describe(train))  # its column 2 is that of the classes


def test_what_is_lacking_is_refused_and_what_is_new_is_said(trained, tmp_path, caplog):
    with pytest.raises(ValueError, match=r"new.csv lacks columns that training had, g2: it has cell, g1, g3; add them"):
        read_alike(write(tmp_path, "cell,g1,g3\nn1,1,2\n"), trained)
    with caplog.at_level(logging.INFO, "dlvm"):
        new = read_alike(write(tmp_path, "g1,g2,other\n1,2,x\n"), trained)
    assert new.x.tolist() == [[1, 2]] and new.index is None
    assert "other left out, which training did not have" in caplog.text
    assert "no column cell as in training, so there are no ids" in caplog.text


def test_a_class_that_training_did_not_have_comes_behind(trained, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "dlvm"):
        new = read_alike(write(tmp_path, "cell,g1,g2,type\nn1,1,2,A\nn2,1,2,T\nn3,3,4,B\nn4,3,4,A\n"), trained)
    assert new.label_names == ("B", "T", "A") and new.labels.tolist() == [2, 1, 0, 2]
    assert "classes that training did not have: A" in caplog.text


@pytest.mark.parametrize("cells", ["1.5,2", "-1,2"])
def test_numbers_that_training_could_not_have_are_refused(trained, tmp_path, cells):
    with pytest.raises(ValueError, match="must hold counts 0, 1, 2, ... as in training, got numbers from"):
        read_alike(write(tmp_path, f"cell,g1,g2\nn1,{cells}\nn2,1,1\n"), trained)


def test_missing_entries_are_told_by_the_same_words(tmp_path):
    (tmp_path / "train.csv").write_text("a,b\n1,2\n3,-9\n5,6\nNA,8\n2,2\n")
    train = from_file(tmp_path / "train.csv", missing=["-9", "NA"], valid=1, test=1).train
    new = read_alike(write(tmp_path, "b,a\n-9,1\n3,\n"), describe(train))
    assert np.array_equal(new.x, [[1, np.nan], [np.nan, 3]], equal_nan=True) and new.has_missing
    with pytest.raises(ValueError, match="got 1 NaN or inf"):
        read_alike(torch.tensor([[1.0, float("nan")]]), describe(Loader(torch.rand(3, 2))))


def test_levels_are_divided_as_in_training_once(tmp_path, caplog):
    described = describe(from_file(npy(RGB)(tmp_path), valid=1, test=1).train)
    expected = torch.from_numpy((RGB / 255).transpose(0, 3, 1, 2).reshape(4, -1)).float()
    assert torch.equal(read_alike(RGB, described).x, expected)
    assert read_alike(RGB.transpose(0, 3, 1, 2), described).image_shape == (3, 2, 3)
    with caplog.at_level(logging.INFO, "dlvm"):
        assert torch.equal(read_alike(expected, described).x, expected)
    assert "numbers lie in [0, 1] already, and are not divided by 255" in caplog.text
    folder = pictures(a=RGB[0], b=RGB[1])(tmp_path)
    assert torch.equal(read_alike(folder, described).x, expected[:2])
    with pytest.raises(ValueError, match=r"must have rows of shape \(3, 2, 3\) as in training, got \(3, 2, 5\)"):
        read_alike(RGB.repeat(2, 2)[:, :, :5], described)


def test_greys_are_binarised_as_in_training():
    described = describe(digits(binarize="dynamic").train)
    grey = load("digits", binarize=None).test
    new = read_alike(16 * grey.x, described)  # as scikit-learn has them
    assert torch.equal(new.x, digits(binarize="dynamic").test.x) and new.image_shape == (8, 8)
    assert torch.equal(read_alike(grey.x, describe(digits(binarize="threshold").train)).x, (grey.x >= 0.5).float())
    with pytest.raises(
        ValueError, match=r"must hold numbers in \[0, 1\] as in training, got numbers from 0 to 15.9375"
    ):
        read_alike(255 * grey.x, described)


def test_genes_are_found_by_name(tmp_path):
    described = describe(from_file(h5ad()(tmp_path), valid=1, test=1, columns=["g3", "g1"]).train)
    new = read_alike(h5ad("dense")(tmp_path), described)
    assert np.array_equal(new.x, COUNTS[:, [2, 0]]) and new.index == ("c1", "c2", "c3", "c4")
    assert np.array_equal(read_alike(FRAME, described).x, COUNTS[:, [2, 0]])


def test_sequences_are_read_as_sequences():
    rolls = np.ones((6, 4, 3), np.uint8)
    train = from_tensor(rolls, more={"lengths": np.full(6, 4)}).train
    assert read_alike(rolls[:2], describe(train)).kind == "sequence"
    with pytest.raises(ValueError, match="must have rows of shape"):
        read_alike(rolls[:2, :, :2], describe(train))


def test_a_description_of_another_version_is_refused(trained):
    with pytest.raises(ValueError, match="description must have version 1, got 0: train anew"):
        read_alike(COUNTS, {**trained, "version": 0})
