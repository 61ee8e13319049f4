"""The script on mixtures: EM and gradients from one start, judged by exact log p(x)."""

from __future__ import annotations

import json

import pytest
import torch

from dlvm.experiments import mixtures
from dlvm.experiments.measures.mixture_fits import DRAWN, LABELS, Effort, exact_log_px, fitted, toy
from dlvm.experiments.mixtures import Config, main
from dlvm.inference import NonFinite
from dlvm.models import FactorAnalysers, GaussianMixture


@pytest.mark.slow
def test_em_comes_to_where_it_rises_no_more_and_gradients_go_there(tmp_path):
    rows = main(Config(ways=("em", "summed_out", "vimco"), epochs=2, seeds=1, num_particles=2, out=tmp_path / "run"))
    train = {row["way"]: row["train"] for row in rows}
    starts = [row["history"][0]["train"] for row in rows]
    assert starts == pytest.approx([starts[0]] * 3, abs=1e-5) and train["EM"] == max(train.values()) > starts[0] + 0.3
    em, summed, drawn = rows
    rises = [step["train"] for step in em["history"]]
    assert all(after > before - 1e-4 for before, after in zip(rises, rises[1:], strict=False))
    assert em["gap"] == summed["gap"] == 0 < drawn["gap"]
    kept = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [row["test"] for row in kept["runs"]] == [row["test"] for row in rows] and not kept["failed"]
    assert {path.name for path in (tmp_path / "run").glob("*.png")} == {"curves.png", "components.png"}


def test_the_best_pass_on_validation_data_is_kept():
    _, data = toy(50)
    torch.manual_seed(0)
    model = GaussianMixture(8, 2).start_at(data.train.x)
    ends, history = fitted(model, "em", data, Effort(epochs=15), seed=0)
    assert ends["valid"] == max(step["valid"] for step in history) == exact_log_px(model, data.valid.x)


def test_factors_are_drawn_where_components_are_summed_out():
    _, data = toy(300)
    torch.manual_seed(0)
    model = FactorAnalysers(3, 2, 1).start_at(data.train.x)
    ends, history = fitted(model, "summed_out", data, Effort(epochs=3), seed=0)
    assert ends["gap"] > 0 and history[-1]["train"] > history[0]["train"]


def test_what_comes_to_nothing_is_told_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    def fails_by_em(model, way, *others):
        if way == "em":
            raise ValueError("component 1 is singular")
        return fitted(model, way, *others)

    monkeypatch.setattr(mixtures, "fitted", fails_by_em)
    (row,) = mixtures.main(Config(ways=("em", "summed_out"), epochs=1, seeds=1, out=tmp_path / "run"))
    said = capsys.readouterr().out
    assert row["way"] == "summed out" and "EM, start 0, failed: component 1 is singular" in " ".join(said.split())
    with pytest.raises(SystemExit, match="no run gave a mixture; the first: component 1 is singular"):
        mixtures.main(Config(ways=("em",), seeds=1, out=tmp_path / "none"))
    _, data = toy(50)
    with pytest.raises(NonFinite):
        fitted(GaussianMixture(2, 2), "summed_out", data, Effort(epochs=1, lr=1e8), seed=0)


def test_what_cannot_be_asked_for_is_refused_before_a_folder_is_made(tmp_path):
    assert set(DRAWN) < set(LABELS)
    for settings, words in [
        ({"kind": "factor_analysers"}, "ways must leave out gumbel and straight_through"),
        ({"ways": ("em", "em")}, "ways must be different words"),
        ({"components": 0}, "components must be at least 1"),
        ({"num_particles": 1}, "num_particles must be at least 2"),
        ({"floor": -1.0}, "floor must be at least 0"),
        ({"floor": 0.5, "kind": "bernoulli"}, "floor must lie between 0 and 0.5 for bernoulli"),
        ({"columns": ("a",)}, "columns is of data that are read"),
    ]:
        with pytest.raises(ValueError, match=words):
            main(Config(**settings, out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
