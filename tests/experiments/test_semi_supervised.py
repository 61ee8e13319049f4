"""Few labels: which rows show theirs, the ways to learn from them, and the script that compares these, tiny."""

from __future__ import annotations

import json

import matplotlib
import pytest
import torch

from dlvm.experiments import semi_supervised
from dlvm.experiments.data import Loader, Splits, digits
from dlvm.experiments.data.few_labels import GIVEN, balanced, labels_repeated, with_few_labels
from dlvm.experiments.figures import errors_by_labels
from dlvm.experiments.semi_supervised import Config, table, verdict
from dlvm.experiments.sweeps.few_label_ways import Learning, classifier

DATA = digits(binarize="dynamic")


def test_labels_are_shown_to_training_alone_as_many_of_each_class_and_by_a_seed() -> None:
    shown = with_few_labels(DATA, 57, seed=3)
    given = shown.train[GIVEN]
    known = given >= 0
    assert int(known.sum()) == 57 and set(given[known].bincount().tolist()) == {5, 6}
    assert torch.equal(given[known], DATA.train["y"][known]) and set(given[~known].tolist()) == {-1}
    assert shown.train.given == ("x", GIVEN) and shown.valid.given == shown.test.given == ("x",)
    x, y = next(iter(shown.train))
    assert len(x) == len(y) and shown.train.dynamic and set(x.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(with_few_labels(DATA, 57, seed=3).train[GIVEN], given)
    assert not torch.equal(with_few_labels(DATA, 57, seed=4).train[GIVEN], given)
    assert int((with_few_labels(DATA, 0).train[GIVEN] >= 0).sum()) == 0


def test_a_class_of_few_rows_gives_what_it_has_and_rows_without_a_label_none() -> None:
    classes = torch.tensor([0] * 20 + [1] * 3 + [-1] * 5)
    kept = balanced(classes, 10)
    assert classes[kept].bincount().tolist() == [7, 3]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (10**6, "labels must be an int from 1 to 1297, got 1000000"),
        (-1, "labels must be"),
        (2.5, "labels must be an integer"),
    ],
)
def test_labels_that_are_not_there_are_refused(labels: int, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        with_few_labels(DATA, labels)
    bare = Loader(torch.eye(4))
    with pytest.raises(ValueError, match="have no labels to learn classes from"):
        with_few_labels(Splits(bare, bare, bare), 1)


def test_rows_with_a_label_come_again_until_they_are_their_share() -> None:
    few = with_few_labels(DATA, 20, seed=1).train
    again = labels_repeated(few, 0.1)
    given = again[GIVEN]
    assert abs((given >= 0).double().mean() - 0.1) < 0.01 and given[given >= 0].bincount().unique().numel() == 1
    assert torch.equal(again.x[: few.num_data], few.x) and again.given == few.given and again.dynamic
    assert len(again.x[given >= 0].unique(dim=0)) == 20
    assert labels_repeated(few, 0.01) is few and labels_repeated(with_few_labels(DATA, 0).train, 0.1).num_data == 1297
    with pytest.raises(ValueError, match="labelled_share must be from 0 to below 1, got 1"):
        labels_repeated(few, 1)


@pytest.mark.slow
def test_a_classifier_learns_from_labelled_rows_alone() -> None:
    """With the others or without them it is as good."""
    how = Learning(hidden=(16,), epochs=1, batch_size=50)
    kept = balanced(DATA.train["y"], 30)
    only = Loader(DATA.train.x[kept], labels=DATA.train["y"][kept], dynamic=True)
    few = classifier(how, Splits(only, DATA.valid, DATA.test), 30, 0)
    whole = classifier(how, DATA, 30, 0)
    assert 5 < few < 60 and 5 < whole < 60 and abs(few - whole) < 15


@pytest.mark.slow
def test_every_way_learns_and_labels_help(tmp_path) -> None:
    small = dict(data="digits", labels=(30, 300), seeds=1, epochs=30, batch_size=50, z_dim=8, hidden=(64, 32))
    rows = semi_supervised.main(Config(**small, out=tmp_path / "run"))
    errors = {(e["way"], e["labels"]): e["error"] for row in rows for e in row["errors"]}
    assert set(errors) == {(way, n) for way in ("classifier", "m1", "m2", "m1_m2") for n in (30, 300)}
    assert all(errors[way, 300] < errors[way, 30] < 75 for way in ("classifier", "m1", "m2", "m1_m2"))
    said = json.loads((tmp_path / "run" / "result.json").read_text())["verdict"]
    assert "With 30 labels" in said and "With 300 labels" in said
    assert (tmp_path / "run" / "errors.png").exists()


def test_means_errors_and_published_numbers_stand_in_the_table() -> None:
    rows = [{"seed": s, "errors": [{"way": "m2", "labels": 100, "error": 10.0 + 2 * s}]} for s in range(2)]
    found = table(Config(labels=(100, 600), seeds=2), rows)
    assert found.rows[0] == ["M2", (11.0, pytest.approx(1.0)), None]
    assert ["M2, published", 11.97, 4.94] in found.rows
    assert verdict(Config(labels=(100,)), rows) == "With 100 labels M2 errs least, 11.00 %."
    assert not any("published" in row[0] for row in table(Config(data="digits", labels=(100,)), rows).rows)


def test_the_figure_names_the_best_and_draws_published_lines_of_ways_that_are_there() -> None:
    errors = {"M2": {100: [12.0, 10.0], 600: [5.0]}, "classifier": {100: [25.0], 600: [12.0]}}
    fig = errors_by_labels(errors, {"M2": {100: 11.97}, "M1+M2": {100: 3.3}}, "digits.")
    texts = " ".join(t.get_text() for t in fig.findobj(matplotlib.text.Text))
    assert "With 100 labels M2 errs least: 11.0 %" in texts and "published" in texts and "M1+M2" not in texts
    with pytest.raises(ValueError, match="errors: expected at least one way"):
        errors_by_labels({})
