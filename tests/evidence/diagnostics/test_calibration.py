"""Ranks of simulated truths under guides whose miscalibration is known in closed form."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import GOLDEN_1, assert_close

from dlvm.evidence.diagnostics.calibration import calibration
from dlvm.evidence.diagnostics.calibration_record import Ranked
from dlvm.guides import Joint, latents
from dlvm.models import PPCA
from dlvm.nets import MLP

LEVELS = (0.5, 0.8, 0.9, 0.95)
CORRELATED = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)


def golden() -> PPCA:
    return PPCA(GOLDEN_1.weight, GOLDEN_1.mu, 0.5)


def off(model: PPCA, factor: float = 1.0, shift: float = 0.0):
    """The exact posterior, its scale multiplied and its mean moved by so many marginal standard deviations."""

    def guide(x):
        exact = model.posterior(x)
        loc = exact.loc + shift * exact.covariance_matrix.diagonal(dim1=-2, dim2=-1).sqrt()
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=factor * exact.scale_tril))

    return guide


def coin(x=None, n=1):
    """z ~ Bernoulli(0.3), x | z ~ N(z, 1)."""
    with pyro.plate("data", n if x is None else len(x)):
        z = pyro.sample("z", dist.Bernoulli(0.3))
        return pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def coin_guide(sharpness: float):
    """logit q(z = 1 | x) = sharpness * (logit 0.3 + x - 1/2), the posterior's at 1."""

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=sharpness * (math.log(3 / 7) + x - 0.5)))

    return guide


def phi(level: float, ratio: float) -> float:
    """Coverage of a central interval of N(m, ratio^2 s^2) for a truth from N(m, s^2)."""
    normal = dist.Normal(torch.zeros(()).double(), 1.0)
    return (2 * normal.cdf(ratio * normal.icdf(torch.tensor(0.5 + level / 2).double())) - 1).item()


def near(row: Ranked, level: float, expected: float, errors: float = 3.5) -> bool:
    """Whether a coverage is within so many binomial errors of what it should be."""
    return abs(row.coverage(level).value - expected) < errors * math.sqrt(expected * (1 - expected) / len(row.u))


def test_the_exact_posterior_is_calibrated(float64):
    found = calibration(golden(), off(golden()), num_data=2000)
    assert [row.name for row in found.rows] == ["z[0]", "z[1]", "log p(x, z)"]
    assert min(row.p_value for row in found.rows) > 0.01
    assert all(near(row, level, level, 3.0) for row in found.rows for level in LEVELS)
    assert found.calibrated and found.verdict == "no fault seen" and found.faults == {}
    for level in LEVELS:
        assert abs(found.coverage(level).value - level) < 3 * found.coverage(level).se
    assert "coverage of central intervals   50 %: " in str(found) and "0 of 3 quantities" in str(found)


@pytest.mark.parametrize("factor, verdict", [(0.7, "too narrow"), (1.4, "too wide")])
def test_a_wrong_scale_has_the_coverage_of_the_closed_form(float64, factor, verdict):
    found = calibration(golden(), off(golden(), factor), num_data=2000, num_particles=200)
    assert all(near(found[f"z[{j}]"], level, phi(level, factor)) for j in range(2) for level in LEVELS)
    assert found.verdict == verdict and found.faults["z[0]"] == found.faults["z[1]"] == verdict
    more, less = ("more", "less") if factor < 1 else ("less", "more")
    assert found.faults["log p(x, z)"] == f"draws are {more} likely than the truth" and less not in str(found).split()


@pytest.mark.parametrize("shift, word", [(0.2, "too high"), (-0.2, "too low")])
def test_a_shifted_mean_is_found(float64, shift, word):
    """E u = P(draw < truth) = Phi(-shift / sqrt 2)."""
    found = calibration(golden(), off(golden(), shift=shift), num_data=1000)
    expected = dist.Normal(0.0, 1.0).cdf(torch.tensor(-shift / math.sqrt(2)))
    for row in found.rows[:2]:
        assert abs(row.u.mean() - expected) < 4 / math.sqrt(12 * 1000)
    assert found.verdict == "shifted" and found.faults["z[0]"] == found.faults["z[1]"] == word


def test_mean_field_is_too_narrow_by_the_ratio_of_variances(float64):
    """Variances 1 / Lambda_jj in place of Sigma_jj."""
    model = PPCA(CORRELATED, torch.zeros(2), math.sqrt(0.3))
    precision = torch.eye(2) + CORRELATED.T @ CORRELATED / 0.3
    ratio = (1 / (precision.diagonal() * torch.linalg.inv(precision).diagonal())).sqrt()
    assert ratio.max() < 0.6

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(model.posterior(x).loc, precision.diagonal().rsqrt()).to_event(1))

    found = calibration(model, guide, num_data=2000, num_particles=200)
    assert all(near(found[f"z[{j}]"], level, phi(level, ratio[j])) for j in range(2) for level in LEVELS)
    assert found.verdict == "too narrow" and "FullRank" in found.next_step


def test_the_prior_is_calibrated_dimension_by_dimension_and_not_jointly(float64):
    def prior(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    found = calibration(golden(), prior, num_data=1000)
    assert found.faults == {"log p(x, z)": "draws are less likely than the truth"}
    assert found.verdict.startswith("wrong jointly")


def test_discrete_draws_are_ranked_with_ties_broken_at_random(float64):
    right = calibration(coin, coin_guide(1.0), num_data=2000, num_particles=50)
    assert [row.name for row in right.rows] == ["z", "log p(x, z)"] and right.calibrated
    assert min(row.p_value for row in right.rows) > 0.01
    assert all(near(row, level, level, 3.0) for row in right.rows for level in LEVELS)
    wrong = calibration(coin, coin_guide(4.0), num_data=2000, num_particles=50)
    assert wrong.p_values["z"] < 1e-6


def test_weights_correct_a_guide_too_wide(float64):
    plain, weighted = (
        calibration(golden(), off(golden(), 1.4, 0.3), num_data=1000, num_particles=200, weighted=w)
        for w in (False, True)
    )
    assert max(plain.p_values.values()) < 1e-6 and min(weighted.p_values.values()) > 0.001
    assert "200 importance-weighted draws" in str(weighted)


def test_draws_far_below_the_truth_leave_it_the_highest_rank(float64):
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.full((2,), -1e6), 1.0).to_event(1))

    found = calibration(golden(), guide, num_data=40, num_particles=7)
    assert (found["z[1]"].ranks == 7).all() and (found["log p(x, z)"].ranks == 7).all()
    assert found.faults["z[1]"] == "too low" and found.coverage(0.5).value == 0.0
    assert "interrupted" not in str(found)


def test_levels_of_the_tests_are_kept():
    """400 uniform samples: p < 0.05 in 20 of them, z-scores of mean 0 and deviation 1, within 4 errors."""
    rows = [Ranked("z", torch.rand(500, dtype=torch.float64), 100) for _ in range(400)]
    rejected = sum(row.p_value < 0.05 for row in rows)
    assert abs(rejected - 20) < 4 * math.sqrt(400 * 0.05 * 0.95)
    for kind in ("shift", "spread"):
        z = torch.tensor([getattr(row, kind) for row in rows])
        assert abs(z.mean()) < 4 / 20 and abs(z.std() - 1) < 4 / math.sqrt(800)


def test_the_p_value_is_that_of_the_chi_square_distribution():
    """Two bins of 6 and 2: chi2 = 2 with one degree of freedom, p = 2 Phi(-sqrt 2)."""
    row = Ranked("z", torch.tensor([0.25] * 6 + [0.75] * 2, dtype=torch.float64), 100)
    normal = dist.Normal(torch.zeros(()).double(), 1.0)
    assert_close(row.p_value, 2 * normal.cdf(-torch.tensor(2.0).double().sqrt()), 1e-12)


def test_several_sites_and_auxiliary_ones(float64):
    """z2 ~ N(0, 1), z1 | z2 ~ N(z2, I_2), x | z1 ~ N(z1, I)."""

    def model(x=None, n=1):
        with pyro.plate("data", n if x is None else len(x)):
            z2 = pyro.sample("z2", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(z2.expand(*z2.shape[:-1], 2), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(z1, 1.0).to_event(1), obs=x)

    x = model(n=4)
    guide = Joint(latents(model, x), MLP(2, 8)).double()
    found = calibration(model, guide, num_data=60, num_particles=20, rows=7)
    assert [row.name for row in found.rows] == ["z2[0]", "z1[0]", "z1[1]", "log p(x, z)"]
    assert found.num_data == 60 and len(found.p_values) == 4


def test_holm_s_correction_is_monotone_and_at_least_the_p_value(float64):
    found = calibration(golden(), off(golden(), 0.95), num_data=500)
    raw = {row.name: row.p_value for row in found.rows}
    order = sorted(raw, key=raw.get)
    assert_close(found.p_values[order[0]], min(1.0, 3 * raw[order[0]]), 1e-12)
    assert all(found.p_values[name] >= raw[name] for name in raw)
    assert found.p_values[order[0]] <= found.p_values[order[1]] <= found.p_values[order[2]] <= 1.0


def test_a_stream_of_its_own(float64):
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    a, b = (calibration(golden(), off(golden()), num_data=30, num_particles=5) for _ in range(2))
    assert torch.equal(torch.rand(2), expected) and torch.equal(a.rows[0].u, b.rows[0].u)
    assert not torch.equal(
        calibration(golden(), off(golden()), num_data=30, num_particles=5, seed=1).rows[0].u, a.rows[0].u
    )


def test_after_an_interrupt_the_record_is_of_what_was_done(float64):
    calls, exact = [], off(golden())

    def guide(x):
        calls.append(len(x))
        if calls.count(10) > 3:
            raise KeyboardInterrupt
        exact(x)

    found = calibration(golden(), guide, num_data=100, num_particles=5, rows=10)
    assert 0 < found.num_data < 100 and found.num_data % 10 == 0
    assert f"interrupted after {found.num_data} of 100 data" in str(found)


def test_what_cannot_be_calibrated_says_why(float64):
    guide = off(golden())
    with pytest.raises(ValueError, match="num_data must be at least 20, got 5"):
        calibration(golden(), guide, num_data=5)
    with pytest.raises(ValueError, match="num_particles must be at least 2, got 1; 100 is usual"):
        calibration(golden(), guide, num_particles=1)
    for levels in ((), (0.5, 1.0), (90,)):
        with pytest.raises(ValueError, match="levels must be one or more numbers between 0 and 1"):
            calibration(golden(), guide, levels=levels)
    with pytest.raises(KeyError, match="no quantity 'y'; there are z"):
        calibration(golden(), guide, num_data=20, num_particles=3)["y"]


def test_latents_that_all_data_share_are_refused(float64):
    def model(x=None, n=1):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", n if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(w, 1.0))
            return pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    with pytest.raises(ValueError, match="weights for 30 data|latent site 'w' is not drawn .* for each datum"):
        calibration(model, guide, num_data=30, num_particles=5)
