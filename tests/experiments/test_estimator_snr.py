"""Signal and noise of gradients: statistics against exact answers, the toy against theory, the script as a whole."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from dlvm.experiments import estimator_snr
from dlvm.experiments.estimator_snr import Config, summary
from dlvm.experiments.figures import bias_and_noise, signal_to_noise
from dlvm.experiments.measures.gradient_arms import ESTIMATORS, square
from dlvm.experiments.measures.gradient_moments import ROUNDING, curves, distance, measure, moments, slope
from dlvm.experiments.measures.gradient_toy import toy

FIVE = Config(toy_dim=5, toy_data=64, perturbation=0.1, repeats=60)
HOW = (FIVE.repeats, FIVE.baseline_epochs, FIVE.seed)


def toy_of(config):
    return toy(config.toy_dim, config.toy_data, config.perturbation, config.seed)


def named(*names):
    return [arm for arm in ESTIMATORS if arm.name in names]


def row(**settings):
    common = dict(group="b", estimator="total", num_particles=1, snr=1.0, variance=1.0, resolved=True, theory=None)
    return common | settings


def test_moments_are_those_of_a_known_gaussian(float64):
    loc, scale = torch.tensor([0.3, -0.4, 0.0]), torch.tensor([1.0, 2.0, 0.5])
    found = moments(loc + scale * torch.randn(4000, 3))
    assert found.resolved and found.square == pytest.approx(0.25, abs=0.08)
    assert found.variance == pytest.approx(5.25, rel=0.06)
    assert not moments(scale * torch.randn(4000, 3)).resolved


def test_squared_mean_is_unbiased_where_the_naive_one_is_not(float64):
    draws = torch.randn(2000, 10, 3)
    squares = torch.tensor([moments(part).square for part in draws])
    se = squares.std() / math.sqrt(len(squares))
    assert squares.mean().abs() < 4 * se
    assert draws.mean(1).square().sum(-1).mean().item() == pytest.approx(0.3, rel=0.1)  # 3 / 10, and not 0
    claimed = torch.tensor([moments(part).se for part in draws])
    assert squares.std().item() == pytest.approx(claimed.square().mean().sqrt().item(), rel=0.1)


def test_distance_tells_a_shift_and_is_silent_on_rounding():
    draws = torch.randn(50, 4, dtype=torch.float64)
    share, told = distance(draws + 2.0, draws, norm=8.0)
    assert told and share == pytest.approx(0.5)  # |(2, 2, 2, 2)| = 4
    assert distance(draws + 1e-9, draws, norm=1.0) == (ROUNDING, False)
    assert not distance(torch.randn(50, 4, dtype=torch.float64), draws, norm=1.0)[1]


def test_slope_is_the_exponent_of_the_last_points():
    rows = [row(num_particles=k, snr=100.0 if k == 1 else 3 * k**-0.5) for k in (1, 4, 16, 64)]
    assert slope(rows) == pytest.approx(-0.5)
    unsure = [*rows[:-1], rows[-1] | {"resolved": False}]
    assert slope(unsure) is None and slope(unsure, "variance") == pytest.approx(0, abs=1e-9)
    assert slope(rows[:1]) is None


@pytest.mark.parametrize(("particles", "groups"), [(1, (1, 1)), (4, (2, 2)), (7, (1, 7)), (8, (2, 4)), (36, (6, 6))])
def test_particles_split_into_groups_as_near_to_a_square_as_can_be(particles, groups):
    assert square(particles) == groups


def test_toy_with_one_particle_has_the_moments_worked_out_by_hand():
    # With z = m + s eps and s^2 = 2/3, d loss / d b is (2 m - x - mu) + 2 s eps, and s eps / 2 without the score of q.
    setting = toy_of(FIVE)
    rows = {(r["group"], r["estimator"]): r for r in measure(setting, named("total", "DReG", "STL"), [1], *HOW)}
    total, path = rows["b (guide)", "total"], rows["b (guide)", "DReG"]
    assert total["variance"] / path["variance"] == pytest.approx(16, rel=1e-3)
    assert total["variance"] == pytest.approx(4 * 2 / 3 * 5 / 64, rel=0.35)
    with torch.no_grad():
        mean = setting.x @ setting.guide.weight.T + setting.guide.bias
        signal = (2 * mean - setting.x - setting.model.loc).mean(0).norm().item()
    assert path["signal"] == total["signal"] == pytest.approx(signal, rel=0.05)
    assert rows["b (guide)", "STL"]["variance"] == pytest.approx(path["variance"])


@pytest.mark.slow
def test_toy_has_the_slopes_of_theory():
    near = replace(FIVE, perturbation=0.01)
    found = curves(measure(toy_of(near), named("total", "DReG"), [4, 16, 64], *HOW))
    for group in ("A (guide)", "b (guide)"):
        assert slope(found[group, "total"]) == pytest.approx(-0.5, abs=0.1)
        assert slope(found[group, "DReG"]) == pytest.approx(0.5, abs=0.1)
        assert slope(found[group, "total"], "variance") == pytest.approx(-1, abs=0.1)
        assert slope(found[group, "DReG"], "variance") == pytest.approx(-3, abs=0.2)
    at = [r["variance"] for r in found["μ (model)", "total"]]
    assert at[0] / at[2] == pytest.approx(16, rel=0.4)


@pytest.mark.slow
def test_bias_is_found_in_the_guide_under_stl_alone():
    names = ("total", "DReG", "STL", "VIMCO", "score")
    rows = measure(toy_of(FIVE), named(*names), [8], *HOW)
    assert {(r["estimator"], r["group"]) for r in rows if r["biased"]} == {("STL", "A (guide)"), ("STL", "b (guide)")}
    b = {r["estimator"]: r for r in rows if r["group"] == "b (guide)"}
    assert b["DReG"]["bias"] is None and b["STL"]["bias"] > 1
    assert b["DReG"]["variance"] < b["VIMCO"]["variance"] < b["total"]["variance"] < b["score"]["variance"]
    assert "< " in summary(rows, "Toy.").text[-1][-2]  # the score's bias is only bounded


@pytest.mark.slow
def test_script_in_tiny_form(tmp_path):
    small = dict(repeats=10, toy_particles=(1, 4), toy_dim=2, toy_data=8, particles=(2, 4), z_dim=2, hidden=(8,))
    config = Config(
        **small, epochs=1, baseline_epochs=1, batch_size=200, bits=3, discrete_particles=2, reference=2, out=tmp_path
    )
    results = estimator_snr.main(config)
    figures = {f"{name}.png" for name in ("toy_estimators", "toy_bounds", "vae_estimators", "vae_bounds", "discrete")}
    records = {"config.json", "metrics.jsonl", "result.json", "report.json", "report.html"}
    assert {path.name for path in tmp_path.iterdir()} == figures | records
    kept = json.loads((tmp_path / "result.json").read_text())
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == sum(len(results[part]) for part in ("toy", "vae", "discrete"))
    assert len(results["toy"]) == 3 * (8 + 11) and len(results["vae"]) == 2 * (11 + 11)  # three need two particles
    assert len(results["discrete"]) == 2 * 10
    assert "Gaussian toy: a tighter bound is" in kept["verdict"] and "Binary latents: bias is" in kept["verdict"]
    page = (tmp_path / "report.html").read_text()
    assert kept["verdict"].split(". ")[0] in page and page.count("<img") == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(repeats=5), "repeats must be at least 10 .* got 5"),
        (dict(particles=(1,)), r"particles must be different positive numbers, one of them at least 2, .* got \(1,\)"),
        (dict(toy_particles=(2, 2)), "toy_particles must be different"),
        (dict(discrete_particles=1), "discrete_particles must be at least 2"),
        (dict(parts=()), "parts must name one of toy, vae, discrete"),
    ],
)
def test_settings_that_cannot_be_measured_are_refused_before_a_folder_is_made(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        estimator_snr.main(Config(**settings, out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_figure_states_the_first_two_estimators_and_marks_upper_limits():
    rows = [row(num_particles=k, snr=2 / k, resolved=k < 16) for k in (1, 4, 16)]
    rows += [row(estimator="DReG", num_particles=k, snr=2.0 * k, theory=0.5) for k in (1, 4, 16)]
    fig = signal_to_noise(rows)
    assert fig.texts[0].get_text().replace("\n", " ") == (
        "From K = 1 to 16 the SNR of b falls from 2.00 to below 0.12 (total) and rises from 2.00 to 32.00 (DReG)"
    )
    hollow = [line for line in fig.axes[0].lines if line.get_markerfacecolor() == "white" and len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in hollow] == [[16]]
    with pytest.raises(ValueError, match="rows: expected at least one estimator"):
        signal_to_noise([])


def test_figure_of_bias_names_who_is_biased():
    common = dict(group="encoder", noise=1.0, bias=0.1, biased=False)
    rows = [common | {"estimator": "VIMCO"}, common | {"estimator": "score", "noise": 9.0}]
    rows.append(common | {"estimator": "Gumbel-softmax", "bias": 0.7, "biased": True})
    title = bias_and_noise(rows).texts[0].get_text().replace("\n", " ")
    assert title == "Gumbel-softmax biases the gradient of the encoder; of the others, VIMCO has the least noise"
    with pytest.raises(ValueError, match="rows: expected at least one estimator"):
        bias_and_noise([])
