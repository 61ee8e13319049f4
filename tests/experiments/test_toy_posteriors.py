"""Shapes of guides: energies against exact constants, four data points against what is known, and the whole script."""

from __future__ import annotations

import json
import math
import sys

import pytest
import torch
from oracles.energies import ENERGIES, LOG_Z_BOX, LOG_Z_CONFINED

from dlvm.experiments import toy_posteriors
from dlvm.experiments.figures import energy_fits, four_posteriors
from dlvm.experiments.measures.draws import elbo_of
from dlvm.experiments.measures.toy_targets import CORNERS, FLOOR, LATENTS, TARGETS, Target, best_diagonal, diagonal_elbo
from dlvm.experiments.options import command_line
from dlvm.guides import FullRank
from dlvm.nets import MLP


def texts(fig) -> str:
    found = [text.get_text() for sub in (fig, *fig.subfigs) for text in sub.texts]
    return "\n".join(found + [ax.get_title(loc=loc) for ax in fig.axes for loc in ("left", "center")])


@pytest.mark.parametrize("name", list(ENERGIES))
def test_energies_are_those_of_the_oracle(name, float64):
    z = 3 * torch.randn(50, 2)
    assert torch.allclose(TARGETS[name].energy(z), ENERGIES[name](z), atol=1e-9)
    box = Target(TARGETS[name].energy, confined=False).log_z((4.0, 4.0))
    assert box == pytest.approx(LOG_Z_BOX[name], abs=2e-6)
    if name != "U1":
        assert TARGETS[name].log_z((4.0, 4.0)) == pytest.approx(LOG_Z_CONFINED[name], abs=2e-6)
        assert TARGETS[name].log_z() > LOG_Z_CONFINED[name] + 0.04  # the plane holds more than the box


def test_log_z_of_one_wave_is_that_of_a_gaussian():
    assert TARGETS["U2"].log_z() == pytest.approx(math.log(2 * math.pi * 2 * 0.4), abs=1e-8)


@pytest.mark.slow
def test_a_family_that_holds_the_target_reaches_log_z():
    spread = torch.tensor([[1.0, 0.8], [0.8, 1.0]])
    precision = spread.inverse()
    target = Target(lambda z: 0.5 * ((z @ precision.to(z)) * z).sum(-1), confined=False)
    guide, one = FullRank(LATENTS, MLP(1, 4)), torch.ones(1, 1)
    toy_posteriors.train(target, guide, one, 600, 64, 3.0, 0.02)
    bound, se = elbo_of(target, guide, one, 20_000)
    log_z = target.log_z((8.0, 8.0), 0.05)
    assert log_z == pytest.approx(math.log(2 * math.pi) + 0.5 * math.log(0.36), abs=1e-6)
    assert -4 * se <= log_z - bound < 0.01


@pytest.mark.slow
def test_limits_of_four_points_are_those_of_quadrature():
    corners = diagonal_elbo(CORNERS, torch.full((4, 2), 0.5).log()).item()
    finer = diagonal_elbo(CORNERS.double(), torch.full((4, 2), 0.5, dtype=torch.float64).log(), 7.0, 301).item()
    assert corners == pytest.approx(-1.797, abs=1e-3) and corners == pytest.approx(finer, abs=1e-4)
    collapsed = diagonal_elbo(torch.zeros(4, 2), torch.zeros(4, 2)).item()  # bits at rate 1/4, the posterior the prior
    assert collapsed == pytest.approx(math.log(0.25) + 3 * math.log(0.75), abs=1e-4)
    assert corners + 0.1 < best_diagonal() < FLOOR  # better than corners: -1.632, four stripes


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    config = toy_posteriors.Config(
        energies=("U1", "U2"), families=("diagonal", "planar"), four_families=("diagonal", "spline"), steps=30,
        num_particles=16, temperatures=(1.0, 3.0), four_steps=60, four_particles=4, seeds=1, draws=2000, hidden=8,
        out=folder,
    )  # fmt: skip
    return folder, toy_posteriors.main(config)


@pytest.mark.slow
def test_a_tiny_run_leaves_a_whole_folder(tiny):
    folder, found = tiny
    assert [(row["energy"], row["family"]) for row in found["energies"]] == [
        (energy, family) for energy in ("U1", "U2") for family in ("Diagonal", "Planar, 8")
    ]
    assert all(row["kl"] > -4 * row["se"] and row["temperature"] in (1.0, 3.0) for row in found["energies"])
    for row in found["four_points"]:
        assert row["log_px"] <= FLOOR and row["gap"] > -4 * row["elbo_se"]
        assert row["gap"] == pytest.approx(row["log_px"] - row["elbo"])
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "metrics.jsonl", "result.json", "report.html", "energies.png", "four_points.png"} <= names
    assert "any model" in (folder / "report.html").read_text()
    kept = json.loads((folder / "result.json").read_text())
    assert "Mean KL(q || p), nats:" in kept["verdict"] and "above the diagonal limit: none" in kept["verdict"]


def test_help_explains_every_option(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["toy_posteriors", "--help"])
    with pytest.raises(SystemExit, match="0"):
        command_line.start(toy_posteriors.main, toy_posteriors.Config, "toy_posteriors")
    shown = capsys.readouterr().out
    assert (
        "python -m dlvm.experiments.toy_posteriors" in shown and "--temperatures" in shown and "(required)" not in shown
    )
    assert set(toy_posteriors.FAMILIES) == set(toy_posteriors.Family.__args__)


def test_what_cannot_work_is_found_before_a_folder_is_made(tmp_path):
    for settings, message in (
        (dict(families=()), "families must be different words, at least one"),
        (dict(energies=("U1", "U1")), "energies must be different words"),
        (dict(steps=2), "steps must be at least 3, got 2"),
        (dict(warm_up=0.0), "warm_up must be positive, got 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            toy_posteriors.main(toy_posteriors.Config(out=tmp_path / "run", **settings))
    assert not (tmp_path / "run").exists()


def test_figures_name_the_best_and_clip_nothing():
    axis = torch.linspace(-3, 3, 21)
    heights = -torch.cartesian_prod(axis, axis).square().sum(-1).reshape(21, 21)
    families = [f"family {i}" for i in range(8)]
    kl = {name: {family: 0.5 + i for i, family in enumerate(families)} for name in ("U1", "U2")}
    draws = {name: {family: torch.randn(500, 2) for family in families} for name in kl}
    fits = energy_fits(axis, dict.fromkeys(kl, heights), draws, kl, "100 steps.")
    assert "family 0 comes closest: KL(q || p) = 0.50 nats on average" in texts(fits)
    truths = ((axis.expand(4, -1), axis.expand(4, -1)), heights.expand(4, -1, -1))
    four = four_posteriors(
        list("abcd"), dict.fromkeys(families[:3], torch.randn(4, 50, 2)), dict.fromkeys(families[:3], truths),
        {family: (-2.0 + 0.1 * i, -1.5) for i, family in enumerate(families[:3])}, {"any model": FLOOR},
    )  # fmt: skip
    assert "family 2 reaches the highest ELBO: −1.800" in texts(four)
    for fig in (fits, four):
        fig.draw_without_rendering()
        box, (width, height) = fig.get_tightbbox(), fig.get_size_inches()
        assert box.x0 > -0.01 and box.y0 > -0.01 and box.x1 < width + 0.01 and box.y1 < height + 0.01
    with pytest.raises(ValueError, match=r"draws\['U1'\]: expected draws and a KL for each family"):
        energy_fits(axis, {"U1": heights}, draws, {"U1": {}})
    with pytest.raises(ValueError, match="must name the same guides"):
        four_posteriors(list("abcd"), {}, {}, {}, {})
