"""The menu of objectives, training by the clock, and the comparison of objectives in tiny form."""

from __future__ import annotations

import io
import json
import math
import sys
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import get_args

import matplotlib
import pyro
import pytest
import torch
from torch import nn

from dlvm.experiments import compare_bounds
from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.figures import own_bounds, reached, timed_curves
from dlvm.experiments.options import objectives
from dlvm.experiments.options.command_line import start
from dlvm.experiments.sweeps import equal_time
from dlvm.experiments.sweeps.equal_time import Pieces, timed_fit
from dlvm.guides import Diagonal, latents
from dlvm.inference import IWAE, MIWAE, Baked, NoCompiler, NonFinite, Refused, Renyi, check, evaluate
from dlvm.inference.bounds.importance import log_mean_exp
from dlvm.models import PPCA
from dlvm.nets import MLP

IMPOSSIBLE = (
    {
        ("analytic_kl", "stl"): "leaves no sampled log q for STL",
        ("analytic_kl", "dreg"): "leaves no sampled log q for DReG",
        ("vr_max", "dreg"): "continuous slopes, which VRMax has not",
    }
    | {
        (objective, word): said
        for word in ("gumbel", "straight_through", "disarm", "rebar", "relax", "relax_net", "gumbel_rao", "enumeration")
        for objective, said in {
            "analytic_kl": "leaves no sampled log q for",
            "piwae": "is more than sampled weights and coefficients",
            "cubo": "is not defined for CUBO",
        }.items()
    }
    | {
        (objective, "enumeration"): "is right for the ELBO alone"
        for objective in ("iwae", "renyi", "vr_max", "miwae", "piwae", "ciwae", "tvo")
    }
    | {
        (objective, word): f"estimator must be {' or '.join(allowed)} for {objective}"
        for objective, allowed in objectives.ESTIMATORS_OF_ITS_OWN.items()
        for word in objectives.ESTIMATORS
        if word not in allowed
    }
)


def pair():
    pyro.set_rng_seed(0)
    model = PPCA(torch.tensor([[1.0, 0.5], [0.0, 1.0], [1.0, -1.0]]), torch.zeros(3), 0.5)
    x = model(n=60).detach()
    return model, Diagonal(latents(model, x), MLP(3, 8)), x


def rows(**changes):
    numbers = {"elbo": -23.0, "bound": -22.8, "lower": True, "log_px": -22.5, "log_px_se": 0.01}
    return [
        numbers | {"objective": name, "ms_per_step": 1.0 + i, "steps": 400, "log_px": -22.5 - i - s / 10} | changes
        for i, name in enumerate(("IWAE", "ELBO"))
        for s in (0, 1)
    ]


def texts(fig):
    return " ".join(text.get_text() for text in fig.findobj(matplotlib.text.Text))


@pytest.mark.parametrize("word, estimator", [*product(objectives.OBJECTIVES, objectives.ESTIMATORS)])
def test_every_pair_of_words_works_or_says_why_not(word, estimator):
    numbers, net = objectives.Numbers(num_particles=4), partial(nn.Linear, 3, 1)
    if (word, estimator) in IMPOSSIBLE:
        with pytest.raises(ValueError, match=IMPOSSIBLE[word, estimator]):
            objectives.objective_of(word, numbers, estimator, net)
        return
    model, guide, x = pair()
    objective = objectives.objective_of(word, numbers, estimator, net)
    if word == "maximum_likelihood":
        with pytest.raises(ValueError, match="needs a model that observes everything"):
            check(model, guide, objective, x)
        return
    assert objective.num_particles == 4
    if word == "fivo":
        with pytest.raises(ValueError, match="PPCA cannot be gone through step by step"):
            check(model, guide, objective, x)
        return
    assert check(model, guide, objective, x) == {"z": "analytic" if word == "analytic_kl" else "Monte Carlo"}
    loss = objective.differentiable_loss(model, guide, x)
    loss.backward()
    slopes = [p.grad for p in (*model.parameters(), *guide.parameters())]
    assert all(slope is not None and slope.isfinite().all() and slope.abs().sum() > 0 for slope in slopes)


def test_words_are_those_that_the_command_line_offers():
    assert get_args(objectives.ObjectiveWord) == tuple(objectives.OBJECTIVES)
    assert get_args(objectives.EstimatorWord) == tuple(objectives.ESTIMATORS)
    assert set(compare_bounds.LABELS) == {*objectives.OBJECTIVES, *objectives.ESTIMATORS}


def test_numbers_reach_the_formulas():
    numbers = objectives.Numbers(num_particles=6, groups=3, alpha=0.2, beta=0.25, order=3.0, intervals=4, sleep=0.1)
    log_w = torch.randn(6, 5)
    by_pairs = log_mean_exp(log_w.view(3, 2, 5).transpose(0, 1)).mean(0)
    expected = {
        "miwae": by_pairs,
        "piwae": log_mean_exp(log_w),
        "renyi": Renyi(0.2, 6).bound(log_w),
        "ciwae": 0.25 * log_w.mean(0) + 0.75 * log_mean_exp(log_w),
        "vr_max": log_w.amax(0),
    }
    for word, value in expected.items():
        assert torch.allclose(objectives.objective_of(word, numbers).bound(log_w), value, atol=1e-5), word
    piwae = objectives.objective_of("piwae", numbers)
    assert isinstance(piwae.model, IWAE) and isinstance(piwae.guide, MIWAE)
    assert "order=3," in repr(objectives.objective_of("cubo", numbers))
    assert "intervals=4" in repr(objectives.objective_of("tvo", numbers))
    assert objectives.objective_of("rws", numbers, "dreg").estimator.doubly
    assert objectives.objective_of("rws", numbers).estimator.sleep == 0.1


def test_mistakes_in_words_and_numbers_are_named():
    with pytest.raises(ValueError, match="groups must divide num_particles, the particles in all, got 3 and 8"):
        objectives.objective_of("miwae", objectives.Numbers(groups=3))
    with pytest.raises(ValueError, match="objective must be one of elbo, .*, got 'iwaes'"):
        objectives.objective_of("iwaes", objectives.Numbers())
    with pytest.raises(ValueError, match="estimator must be one of total, .*, got 'drag'"):
        objectives.objective_of("iwae", objectives.Numbers(), "drag")
    with pytest.raises(ValueError, match="estimator nvil needs a net of the data"):
        objectives.objective_of("iwae", objectives.Numbers(), "nvil")


@dataclass
class Nothing:
    """Nothing to set."""


@pytest.mark.parametrize("error", [Refused("shape depends"), NoCompiler("no compiler"), Baked("a number changed")])
def test_an_engine_that_cannot_run_ends_in_one_line(monkeypatch, error):
    def main(_):
        raise error

    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(SystemExit) as stopped:
        start(main, Nothing, "script")
    assert stopped.value.code == f"error: {error}"


def test_pieces_pass_over_all_data_and_repeat_under_a_seed():
    loader = Loader(torch.arange(7.0)[:, None], batch_size=2, shuffle=True)
    pieces = Pieces(loader, 3).seeded(5)
    seen = [torch.cat([x for (x,) in pieces]) for _ in range(4)]  # 12 batches: three passes of 2, 2, 2, 1
    assert [len(piece) for piece in seen] == [6, 5, 5, 5]
    assert torch.cat(seen).flatten().long().bincount().tolist() == [3] * 7
    again = Pieces(loader, 3).seeded(5)
    assert torch.equal(seen[0], torch.cat([x for (x,) in again]))


def test_time_is_used_up_and_the_best_look_is_kept():
    model, guide, x = pair()
    data = Splits(*(Loader(x, batch_size=20) for _ in range(3)))
    adam = partial(torch.optim.Adam, lr=0.5)  # so large that looks go up and down
    how = dict(seconds=0.5, looks=8, valid_particles=20, engine="eager")
    looks = list(timed_fit(model, guide, IWAE(2), data, adam, **how))
    assert 2 <= len(looks) <= 8
    assert [look["seconds"] for look in looks] == sorted(look["seconds"] for look in looks)
    assert looks[-2]["seconds"] < 0.5 <= looks[-1]["seconds"]
    assert all(look["steps"] == look["epochs"] * 3 and look["steps"] % 20 == 0 for look in looks)
    kept = evaluate(model, guide, data.valid, num_particles=20).log_px
    assert kept == max(look["log_px"] for look in looks)


@pytest.mark.slow
def test_epochs_take_the_place_of_seconds_and_repeat_under_a_seed():
    def run(seconds):
        model, guide, x = pair()
        data = Splits(*(Loader(x, batch_size=10, shuffle=True) for _ in range(3)))
        adam = partial(torch.optim.Adam, lr=0.01)
        looks = timed_fit(model, guide, IWAE(2), data, adam, seconds, epochs=10, looks=3, engine="eager")
        return [(look["steps"], look["log_px"]) for look in looks]

    found = run(1e-9)
    assert [steps for steps, _ in found] == [24, 42, 60]  # the ends of the epochs that reach a third, two, and all
    assert found == run(100.0)


@pytest.mark.slow
def test_compare_bounds_in_tiny_form(tmp_path):
    names = ("elbo", "iwae:dreg", "vr_max")
    config = compare_bounds.Config.of(
        objectives=names, seeds=2, seconds=0.15, looks=3, hidden=(8,), z_dim=2, eval_particles=30, eval_data=20,
        num_particles=4, out=tmp_path,
    )  # fmt: skip
    found = compare_bounds.main(config)
    assert [(row["objective"], row["seed"]) for row in found] == [
        (compare_bounds.label(name), seed) for seed in (0, 1) for name in names
    ]
    for row in found:
        assert row["elbo"] == pytest.approx(-(row["rate"] + row["distortion"]))
        assert row["seconds"] >= 0.15 and row["steps"] > 0
    by_name = {row["objective"]: row for row in found}
    assert not by_name["VR-max"]["lower"] and by_name["IWAE, DReG"]["lower"]
    assert by_name["ELBO"]["bound"] == pytest.approx(by_name["ELBO"]["elbo"], abs=0.5)  # the same, by other draws
    assert by_name["VR-max"]["bound"] > by_name["VR-max"]["elbo"]
    files = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "metrics.jsonl", "result.json", "report.html"} <= files
    assert {"reached.png", "timed_curves.png", "own_bounds.png"} <= files
    looks = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {look["objective"] for look in looks} == set(by_name)
    best = max(by_name, key=lambda name: sum(row["log_px"] for row in found if row["objective"] == name))
    assert f"After 0.15 s each, {best} reaches the highest log p(x)" in (tmp_path / "report.html").read_text()


def test_what_cannot_work_is_found_before_a_folder_is_made(tmp_path):
    for settings, message in (
        (dict(objectives=("elbo", "vr_max:dreg")), "continuous slopes"),
        (dict(objectives=("elbow",)), "objective must be one of"),
        (dict(objectives=()), "objectives must name at least one"),
        (dict(objectives=("iwae", "iwae:total")), "objectives must differ, got iwae iwae:total"),
        (dict(seconds=0.0), "seconds must be positive, got 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            compare_bounds.main(compare_bounds.Config.of(out=tmp_path / "run", **settings))
    assert not (tmp_path / "run").exists()


def test_verdict_names_what_seeds_cannot_tell_apart():
    config = compare_bounds.Config.of(seeds=2)
    said = compare_bounds.verdict(rows(), config)
    assert "IWAE reaches the highest log p(x): -22.55" in said
    assert "(0.14 nats" in said and "): none." in said  # 2 * sd 0.0707 * sqrt(2 / 2)
    assert "ELBO comes last with -23.55" in said and "from 1.00 ms (IWAE) to 2.00 ms (ELBO)" in said
    nearer = [row | {"log_px": row["log_px"] + (0.95 if row["objective"] == "ELBO" else 0.0)} for row in rows()]
    said = compare_bounds.verdict(nearer, config)
    assert "): ELBO." in said and "comes last" not in said


def test_figures_put_the_best_first_and_what_is_far_off_at_the_edge():
    far = [row | {"objective": "CUBO", "log_px": -5e4, "elbo": -6e4, "bound": -5e4} for row in rows()[:1]]
    fig = reached(rows() + far)
    left, right = fig.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["IWAE", "ELBO", "CUBO"]
    assert left.get_xlim()[0] > -40 and "−5e+04" in texts(fig)
    assert [bar.get_width() for bar in right.patches] == [1.0, 2.0, 1.0]
    assert "IWAE reaches the highest log p(x): −22.55" in texts(fig)
    assert "gap 0.45" in texts(own_bounds(rows())) and "One seed" not in texts(fig)
    with pytest.raises(ValueError, match=r"rows\[0\]: expected the keys .*; add bound"):
        reached([{k: v for k, v in rows()[0].items() if k != "bound"}])
    with pytest.raises(ValueError, match="got 4 without"):
        own_bounds(rows(elbo=math.nan))


@pytest.mark.slow
def test_no_figure_clips_a_text():
    many = [row | {"objective": f"{row['objective']} of a long name, {i}"} for i in range(5) for row in rows()]
    looks = [[{"seconds": float(s), "log_px": -30.0 + s} for s in range(5)]]
    context = (
        "the 8x8 digits, a FullRank guide, 8 latent dimensions, and a context that needs a second line of the page"
    )
    curves = timed_curves({f"objective {i}": looks for i in range(9)}, context)
    for fig in (reached(many, context), own_bounds(many, context), curves):
        fig.savefig(io.BytesIO(), dpi=100)
        box, (width, height) = fig.get_tightbbox(), fig.get_size_inches()
        assert box.x0 > -0.01 and box.y0 > -0.01 and box.x1 < width + 0.01 and box.y1 < height + 0.01


TINY = dict(epochs=4, looks=2, hidden=(8,), z_dim=2, eval_particles=30, eval_data=20, engine="eager")


@pytest.mark.slow
def test_a_run_that_stops_is_left_out(tmp_path, monkeypatch, capsys):
    kept = equal_time.timed_fit

    def timed_fit(model, guide, objective, *args, **kwargs):
        looks = kept(model, guide, objective, *args, **kwargs)
        yield next(looks)
        if isinstance(objective, IWAE):
            raise NonFinite("epoch 3, batch 1: loss is nan")
        yield from looks

    monkeypatch.setattr(equal_time, "timed_fit", timed_fit)
    config = compare_bounds.Config.of(objectives=("elbo", "iwae"), seeds=1, out=tmp_path, **TINY)
    with pytest.raises(SystemExit, match=r"1 of 2 cells failed \(IWAE, seed 0: epoch 3, batch 1: loss is nan\)"):
        compare_bounds.main(config)
    printed = capsys.readouterr().out
    assert "IWAE, seed 0: failed: epoch 3, batch 1: loss is nan" in printed and "After 4 epochs each" in printed
    kept_rows = json.loads((tmp_path / "result.json").read_text())
    assert [row["objective"] for row in kept_rows["runs"]] == ["ELBO"]
    assert "loss is nan" in (tmp_path / "report.html").read_text()
    looks = [json.loads(line)["objective"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert looks == ["ELBO", "ELBO", "IWAE"]  # what a run noted before it stopped is kept as well
    monkeypatch.undo()
    assert [row["objective"] for row in compare_bounds.main(config)] == ["ELBO", "IWAE"]
    assert "1 of 2 cells are there" in capsys.readouterr().out


@pytest.mark.slow
def test_runs_at_a_time_change_no_number(tmp_path):
    def run(jobs):
        names = ("elbo", "iwae:dreg", "vr_max")
        rows = compare_bounds.main(
            compare_bounds.Config.of(objectives=names, seeds=1, jobs=jobs, out=tmp_path / str(jobs), **TINY)
        )
        return [[row[key] for key in ("objective", "log_px", "elbo", "bound", "steps")] for row in rows]

    assert run(1) == run(2)


def test_timed_curves_say_who_comes_near_the_best_first():
    quick = [{"seconds": s, "log_px": v} for s, v in ((1.0, -30.0), (2.0, -22.05), (3.0, -22.02))]
    late = [{"seconds": s, "log_px": v} for s, v in ((1.0, -31.0), (2.0, -25.0), (3.0, -22.0))]
    fig = timed_curves({"quick": [quick], "late": [late]}, clip=0)
    assert "quick is the first to come within 0.1 nats of the best: after 2.0 seconds" in texts(fig)
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["quick", "late"]
    assert [len(ax.lines) for ax in fig.axes] == [2, 2]
    with pytest.raises(ValueError, match="got none; check the runs"):
        timed_curves({"quick": [[]]})
    with pytest.raises(ValueError, match=r"clip: expected a fraction in \[0, 1\)"):
        timed_curves({"quick": [quick]}, clip=1.0)
