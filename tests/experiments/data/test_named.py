"""Data sets by name: sizes, parts, roles; where files are missing or damaged, what is said."""

from __future__ import annotations

import hashlib
import io
import urllib.error
from functools import cache

import pytest
import torch

from dlvm.experiments.data import Splits, files, load
from dlvm.experiments.data.named import kept, sequences

PLACES = {
    "omniglot": kept.OMNIGLOT,
    "cifar10": kept.CIFAR10,
    "jsb": kept.CHORALES,
    "names": kept.NAMES,
    "shakespeare": kept.SHAKESPEARE,
    "zinc": kept.ZINC_TRAIN,
    "sky": kept.SKY,
    "air_quality": kept.AIR_QUALITY,
}
SIZES = {  # rows of the three parts, the shape of a row, kind, what a batch can hold
    "omniglot": ((17_352, 1_928, 13_180), (784,), "binary", ("x", "character", "drawer", "y")),
    "cifar10": ((3_600, 400, 1_000), (3_072,), "image", ("x", "y")),
    "jsb": ((229, 76, 77), (160, 88), "sequence", ("x", "lengths", "mask")),
    "names": ((25_627, 3_203, 3_203), (16,), "sequence", ("x", "lengths", "mask", "tokens")),
    "shakespeare": ((6_972, 871, 871), (128,), "sequence", ("x", "lengths", "mask", "tokens")),
    "zinc": ((22_001, 2_444, 5_000), (69,), "sequence", ("x", "lengths", "mask", "tokens")),
    "sky": ((8_000, 1_000, 1_000), (6,), "real", ("x", "y")),
    "air_quality": ((7_487, 935, 935), (13,), "real", ("x", "mask")),
}


@cache
def loaded(name: str) -> Splits:
    """As a script has it; read once."""
    return load(name)


def needs(name: str) -> pytest.MarkDecorator:
    there = any((folder / PLACES[name].place).is_file() for folder in files.FOLDERS)
    return pytest.mark.skipif(not there, reason=f"{name} is in neither data/ nor ../shared/data")


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(name)) for name in SIZES])
def test_parts_shapes_kind_and_names_are_those_stated(name):
    parts, shape, kind, names = SIZES[name]
    splits = loaded(name)
    assert tuple(part.num_data for part in splits) == parts
    for part in splits:
        assert tuple(part.x.shape[1:]) == shape and part.kind == kind and part.rows.names == names and part.name == name


def test_simulated_cells_are_always_the_same_and_their_batches_say_nothing_of_the_class():
    train, valid, test = loaded("cells")
    assert [part.num_data for part in (train, valid, test)] == [2000, 400, 600] and train.kind == "count"
    assert train.rows.names == ("x", "b", "y") and torch.equal(load("cells", seed=3).train.x, train.x)
    table = torch.zeros(5, 3).index_put((train["y"], train["b"]), torch.ones(2000), accumulate=True)
    expected = table.sum(1, keepdim=True) * table.sum(0) / 2000
    assert ((table - expected).square() / expected).sum() < 20.1  # chi-squared of 8 degrees of freedom, 1 in 100
    with pytest.raises(ValueError, match="binarize must be None for cells"):
        load("cells", binarize="static")


@needs("jsb")
def test_chorales_are_silent_behind_their_ends():
    for part in loaded("jsb"):
        assert set(part.x.unique().tolist()) == {0.0, 1.0} and not part.x[~part["mask"]].any()
        assert torch.equal(part["mask"].sum(1), part["lengths"])
    assert [int(part["lengths"].sum()) for part in loaded("jsb")] == [13_807, 4_602, 4_725]


@needs("zinc")
def test_molecules_are_spelt_by_their_tokens():
    test = loaded("zinc").test
    first = "".join(test.vocabulary[k] for k in test["tokens"][0].tolist())
    assert first.split(sequences.END)[0] == "CC(C)(C)c1ccc2occ(CC(=O)Nc3ccccc3F)c2c1"
    assert {"Cl", "Br", "[nH]", "[C@@H]"} <= set(test.vocabulary)
    assert test["tokens"][0, test["lengths"][0] - 1] == 0 and (test["tokens"][0, : test["lengths"][0] - 1] > 0).all()


@needs("shakespeare")
def test_plays_follow_on_from_row_to_row():
    train, _, test = loaded("shakespeare")
    text = "".join(train.vocabulary[k] for k in train["tokens"][:2].flatten().tolist())
    assert text.startswith("First Citizen:\nBefore we proceed any further") and len(text) == 256
    assert set(test["lengths"].tolist()) == {128}


@needs("air_quality")
def test_the_air_is_cut_by_time_and_its_gaps_are_missing():
    train, valid, test = loaded("air_quality")
    assert train.has_missing and train.x[~train.x.isnan()].min() > -200
    assert train.index == tuple(sorted(train.index)) and train.index[-1] < valid.index[0] < test.index[0]
    assert "CO_level" not in train.columns and len(train.columns) == 13


@needs("omniglot")
def test_alphabets_of_the_test_part_are_new():
    train, valid, test = loaded("omniglot")
    assert not set(train.labels.tolist()) & set(test.labels.tolist()) and train.x.max() == 1
    assert len(train.label_names) == 50 and set(valid.labels.tolist()) <= set(train.labels.tolist())


@needs("sky")
def test_the_sky_has_its_classes():
    train = loaded("sky").train
    assert train.columns == ("u", "g", "r", "i", "z", "redshift") and train.label_names == ("GALAXY", "QSO", "STAR")


@pytest.mark.parametrize("name", ["jsb", "air_quality"])
@needs("jsb")
@needs("air_quality")
def test_what_is_no_grey_is_not_binarised(name):
    with pytest.raises(ValueError, match="binarize='static' is for greys"):
        load(name, binarize="static")


def offline(*_, **__):
    raise urllib.error.URLError("no route to host")


@pytest.mark.parametrize("name", PLACES)
def test_without_file_and_network_the_error_names_folder_file_and_remedy(name, tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", offline)
    why = "no route to host" if PLACES[name].url else "at no public address: .* has sha256"
    with pytest.raises(FileNotFoundError, match=rf"no data in .*{why}.*{PLACES[name].place}.*--data-dir"):
        load(name, data_dir=tmp_path)


def test_a_download_is_checked_and_kept(tmp_path, monkeypatch):
    content = b"emma\nolivia\nava\n" * 10
    there = kept.NAMES._replace(sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(sequences, "NAMES", there)
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: io.BytesIO(content))
    assert load("names", data_dir=tmp_path).train.vocabulary == ("<end>", *"aeilmov")
    (tmp_path / there.place).write_bytes(content + b"x")
    with pytest.raises(ValueError, match="names.txt: sha256 expected"):
        load("names", data_dir=tmp_path)


def test_another_file_under_the_address_is_refused_and_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: io.BytesIO(b"<html>moved</html>"))
    with pytest.raises(ValueError, match="names.txt: sha256 expected .* got "):
        load("names", data_dir=tmp_path)
    assert not (tmp_path / kept.NAMES.place).exists()


def test_the_nearest_name_is_said():
    with pytest.raises(ValueError, match="name must be digits, .*got 'cifar': cifar10 is the nearest"):
        load("cifar")
