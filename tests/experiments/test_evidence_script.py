"""The comparison of estimators of log p(x) in tiny form: numbers that agree, words that follow, figures."""

from __future__ import annotations

import dataclasses
import json
import math

import matplotlib
import pytest
import torch

from dlvm.evidence import annealed
from dlvm.evidence.estimate import Estimate
from dlvm.evidence.log_px.sandwich_record import Sandwich
from dlvm.evidence.target import Target
from dlvm.experiments import evidence as script
from dlvm.experiments import evidence_report, train
from dlvm.experiments.evidence_report import of_estimators, verdict
from dlvm.experiments.figures.evidence import closing, estimates, weights_by_datum
from dlvm.experiments.measures import evidence_record
from dlvm.models import PPCA

RECORDS = {"config.json", "metrics.jsonl", "result.json", "report.html"}


def tiny(folder, **settings):
    training = {} if "run" in settings else dict(epochs=2, hidden=(8,))
    common = training | dict(
        particles=(10, 30), temperatures=(4,), num_data=5, num_chains=3, leaps=2,
        calibration_data=30, view_data=20, progress=False, out=folder,
    )  # fmt: skip
    return script.Config.of(**common | settings)


def texts(fig):
    return " ".join(text.get_text() for text in fig.findobj(matplotlib.text.Text))


def made_up(method, values, se=0.01, khat=0.2, count=100, **others):
    log_px = torch.as_tensor(values).double()
    ones = torch.ones_like(log_px)
    return Estimate(method, "lower", log_px, se * ones, 50 * ones, khat * ones, count, **others)


def found_of(*estimates, truth=(-20.0, -22.0)):
    """A record with estimates by importance sampling with 10, 100, ... samples."""
    found = evidence_record.Found(truth and Estimate.exactly("quadrature", torch.tensor(truth)))
    for i, one in enumerate(estimates):
        found.rows.append(evidence_record.row_of(one.method, 10 ** (i + 1), 10 ** (i + 1), one, found.truth))
        found.largest[one.method] = one
    return found


@pytest.mark.slow
def test_cost_of_annealing_counts_every_call_of_the_model(monkeypatch):
    states, density = [0], Target.__call__

    def counted(self, u):
        states[0] += u[..., 0].numel()
        return density(self, u)

    monkeypatch.setattr(Target, "__call__", counted)
    model = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0)
    for chains, temperatures, leaps in ((3, 4, 2), (8, 120, 1)):
        states[0] = 0
        annealed(model, torch.zeros(5, 3), None, chains, temperatures, leaps, engine="eager")
        assert states[0] == 5 * evidence_record.annealing_cost(chains, temperatures, leaps)


@pytest.mark.slow
def test_ppca_with_an_exact_value(tmp_path):
    found = script.main(tiny(tmp_path, model="ppca"))
    assert RECORDS | {"estimates.png", "bracket.png", "weights.png"} <= {path.name for path in tmp_path.iterdir()}
    kept = json.loads((tmp_path / "result.json").read_text())
    assert kept["exact_by"] == "exact" and kept["exact"] == pytest.approx(found.truth.mean)
    assert [(row["method"], row["budget"]) for row in kept["estimates"]] == [
        *((method, count) for count in (10, 30) for method in evidence_report.WEIGHTED),
        ("AIS from the prior", 4),
        ("AIS from the guide", 4),
    ]
    for row in kept["estimates"]:
        assert row["bias"] == pytest.approx(row["log_px"] - kept["exact"]) and row["error"] >= abs(row["bias"])
    assert [(row["start"], row["temperatures"]) for row in kept["brackets"]] == [("prior", 4), ("guide", 4)]
    for row in kept["brackets"]:
        assert row["width"] == pytest.approx(row["upper"] - row["lower"])
    bounds = {name: value for name, (value, _) in kept["bounds"].items()}
    assert bounds["ELBO"] < bounds["IWAE"] <= bounds["CUBO"] and bounds["ELBO"] < bounds["exact"] == kept["exact"]
    views = {name: value[0] for name, value in kept["views"].items()}
    assert views["elbo"] == pytest.approx(-views["rate"] - views["distortion"], rel=1e-5)
    assert set(kept["coverage"]) == {"0.5", "0.8", "0.9", "0.95"} and not kept["interrupted"]
    page = (tmp_path / "report.html").read_text()
    assert f"log p(x) of these 5 test data is {kept['exact']:.3f} nats per datum (exact)" in page
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert sum("method" in line for line in lines) == 8 and sum("start" in line for line in lines) == 2


@pytest.mark.slow
def test_a_trained_run_is_measured_as_it_was_left_and_what_cannot_work_is_left_out(tmp_path, monkeypatch):
    def refused(*args, **_):
        raise ValueError("this flow has no inverse")

    def from_prior_only(model, data, guide=None, **settings):
        return refused() if guide is not None else annealed(model, data, guide, **settings)

    monkeypatch.setattr(script, "defensive", refused)
    monkeypatch.setattr(script, "annealed", from_prior_only)
    settings = train.Config.of(hidden=(8,), epochs=2, z_dim=3, guide="full_rank", eval_particles=30, eval_data=20)
    result = train.main(dataclasses.replace(settings, out=tmp_path / "train"))
    found = script.main(tiny(tmp_path / "own", run=tmp_path / "train", num_data=20, particles=(300,)))
    assert found.truth is None and "z has 3 dimensions" in found.why
    assert found.largest["importance sampling"].mean == pytest.approx(result.log_px, abs=0.2)  # by other draws
    assert found.real.rows["ELBO"].mean == pytest.approx(result.elbo, abs=0.3)
    assert set(found.left_out) == {"defensive mixture", "AIS from the guide"}
    assert {origin for origin, *_ in found.brackets} == {"prior"}
    page = (tmp_path / "own" / "report.html").read_text()
    assert "No exact value (z has 3 dimensions" in page and "defensive mixture is left out: this flow has no" in page


@pytest.mark.slow
def test_ctrl_c_leaves_a_report_of_what_was_done(tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "annealed", stopped)
    found = script.main(tiny(tmp_path, model="ppca"))
    assert found.interrupted and len(found.rows) == 6 and not found.brackets and found.views is None
    page = (tmp_path / "report.html").read_text()
    assert "Interrupted: this is what was done." in page and "importance sampling" in page
    assert {"estimates.png", "weights.png"} <= {path.name for path in tmp_path.iterdir()}
    monkeypatch.setattr(script, "prior_sampling", stopped)
    with pytest.raises(KeyboardInterrupt):  # nothing was done
        script.main(tiny(tmp_path, model="ppca", overwrite=True))


def test_an_interrupted_estimate_is_held_against_the_data_it_has():
    truth = Estimate.exactly("exact", torch.tensor([-20.0, -22.0, -50.0]))
    row = evidence_record.row_of("AIS from the guide", 4, 660, made_up("AIS", [-20.1, -22.3], asked=3), truth)
    assert row["bias"] == pytest.approx(-0.2) and row["error"] == pytest.approx(0.2) and row["num_data"] == 2


def test_what_cannot_work_is_found_before_a_folder_is_made(tmp_path):
    (tmp_path / "other").mkdir()
    for settings, message in (
        (dict(particles=()), "particles must be at least 2, got"),
        (dict(particles=(10, 1)), "particles must be different numbers from 2 on, got 10 1"),
        (dict(temperatures=(9, 9)), "temperatures must be different numbers from 1 on, got 9 9"),
        (dict(num_chains=1), "num_chains must be at least 2, got 1"),
        (dict(share=1.0), "share must be between 0 and 1, got 1.0"),
        (dict(objective="miwae"), "groups must divide num_particles"),
        (dict(run=tmp_path / "other"), "must be that of a run of dlvm.experiments.train"),
        (dict(run=tmp_path / "other", model="ppca"), "model is that of the pair in .* with --run.* leave out --model"),
    ):
        with pytest.raises(ValueError, match=message):
            script.main(tiny(tmp_path / "run", **settings))
    assert not (tmp_path / "run").exists()


def test_verdict_takes_the_cheapest_that_is_close_and_says_whether_weights_hold():
    found = found_of(
        made_up("prior sampling", [-20.5, -22.6]),
        made_up("importance sampling", [-20.03, -22.05], khat=0.9),
        made_up("defensive mixture", [-20.01, -22.01]),
    )
    said = verdict(found)
    assert "log p(x) of these 2 test data is -21.000 nats per datum (quadrature)." in said
    assert "average is importance sampling with 100 samples: 100 evaluations" in said and "off by 0.040" in said
    assert "cannot be trusted: k-hat exceeds 0.7 for 100 % of the data with 100 samples" in said
    assert "though its mean is only 0.040 nats off" in said and "Next" not in said
    far = verdict(found_of(made_up("importance sampling", [-20.5, -22.6])))
    assert "None comes within 0.05 nats" in far and "off by 0.550" in far and "can be trusted" in far
    assert far.endswith("Next: longer annealing: --temperatures 1000.")


def test_verdict_without_an_exact_value_rests_on_the_largest_lower_bound():
    pair = (made_up("importance sampling", [-20.02]), made_up("AIS from the guide", [-20.0], count=8))
    found = found_of(*pair, truth=None)
    found.why = "z has 3 dimensions, and quadrature takes at most 2"
    found.real = Sandwich({"IWAE": pair[0], "AIS": pair[1]}, simulated=False)
    said = verdict(found)
    assert "the largest lower bound is -20.000 ± 0.010 nats per datum, by AIS from the guide with 100 temp" in said
    assert "The cheapest that comes within 0.05 nats of that is importance sampling with 10 samples" in said
    assert "AIS less IWAE is 0.020 ± 0.014 nats: they agree within errors" in said
    table = of_estimators(found)
    assert "bias" not in table.columns and len(table.rows) == 2


def test_estimates_far_below_become_arrows_and_the_best_is_named():
    rows = [
        {"method": name, "evaluations": cost, "log_px": value, "log_px_se": 0.01, "error": abs(value + 20)}
        for name, cost, value in (
            ("prior", 10, -300.0),
            ("guide", 10, -20.3),
            ("guide", 100, -20.1),
            ("AIS", 900, -20.01),
        )
    ]
    fig = estimates(rows, -20.0, "a context")
    left, right = fig.axes
    assert "AIS comes closest: off by 0.010" in texts(fig) and left.get_ylim()[0] > -25
    arrows = [line for line in left.lines if line.get_marker() == "v" and line.get_ydata()[0] == 0.025]
    assert len(arrows) == 1 and right.get_yscale() == "log"
    alone = estimates(rows)
    assert len(alone.axes) == 1 and "AIS finds the largest lower bound: −20.01" in texts(alone)
    noisy = rows[2] | {"method": "lucky", "log_px": -19.9, "log_px_se": 0.2}
    assert "AIS finds the largest" in texts(estimates([*rows, noisy]))
    with pytest.raises(ValueError, match="got 1 without; check the model"):
        estimates([rows[0] | {"log_px": math.nan}])


def test_brackets_within_their_noise_are_hollow():
    rows = [
        {"start": "prior", "temperatures": t, "lower": -20 - w, "upper": -20.0, "width": w, "width_se": 0.01}
        | {"lower_se": 0.007, "upper_se": 0.007}
        for t, w in ((10, 0.5), (100, 0.04), (1000, -0.002))
    ]
    fig = closing(rows, -20.0)
    dots = [line for line in fig.axes[1].lines if line.get_marker() == "o"]
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [False, False, True]
    assert dots[-1].get_ydata()[0] == pytest.approx(0.02)  # what the width may be at most
    assert "1000 temperatures from the prior leave −0.002 ± 0.010 nats" in texts(fig)
    with pytest.raises(ValueError, match="expected at least one bracket"):
        closing([])


def test_weights_beyond_the_threshold_are_counted():
    khat = torch.tensor([0.1, 0.8, 0.9, math.nan])
    fig = weights_by_datum({"importance sampling": (khat, khat.abs()), "none": (khat / 0, khat)}, 100, True)
    assert "importance sampling: 67 %" in texts(fig) and len(fig.axes) == 1
    with pytest.raises(ValueError, match="take 25 samples or more"):
        weights_by_datum({"a": (khat * math.nan, khat)}, 10, False)


def test_no_figure_clips_a_text():
    context = (
        "the 8x8 digits, a FullRank guide, 8 latent dimensions, and a context that needs a second line of the page"
    )
    names = ("prior sampling", "importance sampling", "defensive mixture", "AIS from the prior", "AIS from the guide")
    rows = [
        {"method": n, "evaluations": 10**i, "log_px": -20 - 1 / 3**i, "log_px_se": 0.1, "error": 1 / 3**i}
        for n in names
        for i in range(1, 6)
    ]
    brackets = [
        {"start": s, "temperatures": t, "lower": -20 - 1 / t, "upper": -20.0, "width": 1 / t, "width_se": 0.01}
        | {"lower_se": 0.01, "upper_se": 0.01}
        for s in ("prior", "guide")
        for t in (10, 30, 100, 300)
    ]
    points = {name: (torch.rand(20), torch.rand(20)) for name in names[:3]}
    for fig in (estimates(rows, -20.0, context), closing(brackets, -20.0, context), weights_by_datum(points, 9, True)):
        fig.draw_without_rendering()
        box, (width, height) = fig.get_tightbbox(), fig.get_size_inches()
        assert box.x0 > -0.01 and box.y0 > -0.01 and box.x1 < width + 0.01 and box.y1 < height + 0.01
        titles = [ax.title.get_window_extent() for ax in fig.axes if ax.get_title(loc="left")]
        assert not any(a.overlaps(b) for i, a in enumerate(titles) for b in titles[:i])
        assert "mathdefault" not in texts(fig)


def test_exact_values_agree_with_quadrature():
    model = PPCA(torch.tensor([[1.0, 0.5], [0.0, 1.0], [1.0, -1.0]]), torch.zeros(3), 0.5)
    x = model(n=6).detach()
    by_formula, _ = evidence_record.known_value(model, x, seed=0, progress=False)
    model.log_px = None
    by_grid, why = evidence_record.known_value(model, x, seed=0, progress=False)
    assert (by_grid.log_px - by_formula.log_px).abs().max() < 1e-3 and why == ""
