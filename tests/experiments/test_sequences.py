"""Bounds over time: what the script measures, and the script itself, tiny."""

from __future__ import annotations

import json

import matplotlib
import numpy as np
import pytest
import torch

from dlvm.experiments import sequences
from dlvm.experiments.data import from_tensor
from dlvm.experiments.figures import bands_over_time, gaps_by_length
from dlvm.experiments.sequences import BOUNDS, Config, chorales_table, verdict
from dlvm.experiments.sweeps.over_time import Growing, gaps_of, held, hidden_steps, last_seen, truth_of, windows


def test_rows_in_a_row_are_cut_into_sequences_and_what_is_left_over_is_left() -> None:
    x = torch.arange(22.0).reshape(11, 2)
    loader = from_tensor(torch.cat([x, x, x]), kind="real").train
    found = windows(loader, 4)
    assert found.shape == (loader.num_data // 4, 4, 2)
    assert torch.equal(found.flatten(0, 1), loader.x[: 4 * len(found)])


def test_the_last_steps_are_hidden_and_the_first_never() -> None:
    hidden = hidden_steps(torch.zeros(400, 10, 3), 0.3, 2, 0)
    assert hidden[:, -2:].all() and not hidden[:, 0].any()
    assert abs(hidden[:, 1:-2].double().mean() - 0.3) < 4 * (0.3 * 0.7 / 2800) ** 0.5
    x = torch.tensor([[[1.0], [torch.nan], [3.0], [torch.nan]], [[torch.nan], [2.0], [torch.nan], [4.0]]])
    assert last_seen(x).squeeze(-1).tolist() == [[1.0, 1.0, 3.0, 3.0], [0.0, 2.0, 2.0, 4.0]]


def test_numbers_lie_in_the_bands_of_their_own_distribution_as_often_as_these_say() -> None:
    torch.manual_seed(0)
    truth, draws = torch.randn(50, 20, 2), torch.randn(300, 50, 20, 2)
    asked = torch.ones_like(truth, dtype=torch.bool)
    asked[:, 0] = False
    found = held(truth, draws, asked)
    for level in (50, 80, 90):
        share = level / 100
        assert abs(found[f"within_{level}"] - share) < 4 * (share * (1 - share) / 1900) ** 0.5 + 0.01
    assert abs(found["rmse"] - 1) < 0.07 and abs(found["spread"] - 1) < 0.02
    assert held(truth, 0.5 * draws, asked)["within_90"] < 0.65


def test_by_the_exact_posterior_no_weight_of_a_whole_sequence_loses_anything_and_a_filter_does() -> None:
    """Resampling by what is seen so far is wrong for particles that know what is to come."""
    truth = truth_of(0)
    found = gaps_of(truth, truth.guide, 16, Growing(num_particles=4, num_sequences=150), 0)
    assert all(abs(found[bound]) < 1e-3 for bound in ("elbo", "iwae"))
    assert found["fivo"] > 3 * found["fivo_se"] > 0 and found["bootstrap"] > 3 * found["bootstrap_se"] > 0


def test_tables_and_verdict_name_the_best_and_leave_out_what_was_not_asked() -> None:
    rows = [
        {"part": "chorales", "way": way, "seed": seed, "elbo": value + seed / 10, "log_px": value + seed / 10}
        for way, value in (("hmm", 8.2), ("iaf", 7.1))
        for seed in range(2)
    ]
    found = chorales_table(Config(seeds=2), rows)
    assert found.rows[0] == [
        "hidden Markov model, 16 states",
        None,
        *[(pytest.approx(8.25), pytest.approx(0.05))] * 2,
        8.28,
    ]
    assert [row[0] for row in found.rows] == ["hidden Markov model, 16 states", "deep Markov, smoother with an IAF"]
    said = verdict(Config(), rows)
    assert "smoother with an IAF, needs fewest nats per step, 7.15." in said and "ELBO" not in said


def test_figures_say_what_they_show() -> None:
    fig = gaps_by_length({"ELBO": {4: (1.0, 0.1), 8: (4.0, 0.2)}, "FIVO": {4: (0.4, 0.1), 8: (0.8, 0.1)}})
    texts = " ".join(text.get_text() for text in fig.findobj(matplotlib.text.Text))
    assert "On sequences of 8 steps FIVO loses least: 0.10 nats per step" in texts
    rng, hidden = np.random.default_rng(0), np.array([False, True, True, False])
    fig = bands_over_time(rng.normal(size=(4, 2)), hidden, rng.normal(size=(30, 4, 2)), ("CO", "NOx"), "Hidden hours")
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["CO", "NOx"]
    with pytest.raises(ValueError, match="gaps: expected at least one bound"):
        gaps_by_length({})
    with pytest.raises(ValueError, match="some step must be hidden"):
        bands_over_time(np.zeros((4, 1)), ~hidden & hidden, np.zeros((3, 4, 1)), ("CO",), "")


@pytest.mark.slow
def test_the_script_answers_all_three_questions(tmp_path) -> None:
    small = dict(steps=(3, 12), guide_epochs=5, num_sequences=40, num_particles=8, iterations=2, state=2, num_draws=30)
    deep = dict(ways=("hmm", "smoother"), epochs=1, warm_up=0, z_dim=2, width=4, hidden=4, eval_particles=2)
    rows = sequences.main(Config(**small, **deep, seeds=1, out=tmp_path / "run"))
    grown = next(row for row in rows if row["part"] == "growing")["rows"]
    for row in grown:
        assert row["elbo"] > row["iwae"] > -3 * row["iwae_se"] and row["elbo"] > row["fivo"] > -3 * row["fivo_se"]
    ways = {row["way"]: row for row in rows if row["part"] == "chorales"}
    assert abs(ways["hmm"]["log_px"] - 8.28) < 0.1 and ways["smoother"]["elbo"] > ways["smoother"]["log_px"] > 8
    held_by = next(row for row in rows if row["part"] == "bands")["rows"]
    assert held_by[0]["within_50"] < held_by[0]["within_80"] < held_by[0]["within_90"] <= 1
    said = json.loads((tmp_path / "run" / "result.json").read_text())["verdict"]
    assert all(words in said for words in ("FIVO", "nats per step", "90 % band")) and set(BOUNDS) <= set(grown[0])
    assert (tmp_path / "run" / "growing.png").exists() and (tmp_path / "run" / "bands.png").exists()
