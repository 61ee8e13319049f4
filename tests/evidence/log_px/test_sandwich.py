"""The bracket: its order on a model whose log p(x) is known, and what it says where something has not converged."""

from __future__ import annotations

import math
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import Gaussian, chi2, kl
from torch import Tensor

from dlvm.evidence.estimate import Estimate
from dlvm.evidence.log_px.sandwich import sandwich, weighed
from dlvm.evidence.log_px.sandwich_record import Sandwich
from dlvm.evidence.simulate import simulate
from dlvm.models import PPCA

WEIGHT = torch.tensor([[0.8, 0.3], [0.0, 0.6], [0.7, -0.5]])
QUICK = dict(num_particles=200, num_chains=8, temperatures=20, leaps=2, rows=30)


@pytest.fixture
def model(float64) -> PPCA:
    return PPCA(WEIGHT.double(), torch.tensor([0.1, -0.2, 0.0]).double(), 0.8)


@pytest.fixture
def guide(model):
    """The posterior, moved and widened."""

    def guide(x):
        q = model.posterior(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(q.loc.detach() + 0.3, 1.5 * q.covariance_matrix.detach()))

    return guide


def row(side: str, value: float, se: float, count: int = 4, log_px: Tensor | None = None) -> Estimate:
    ones = torch.ones(count, dtype=torch.float64)
    return Estimate("made up", side, value * ones if log_px is None else log_px, se * ones, 9 * ones, 0.1 * ones, 9)


@pytest.mark.slow
def test_bounds_are_in_order_around_the_exact_value(model, guide):
    found = sandwich(model, guide, 30, **QUICK)
    assert list(found.rows) == ["ELBO", "IWAE", "AIS", "exact", "reverse AIS", "CUBO"]
    mean = {name: r.mean for name, r in found.rows.items()}
    x = simulate(model, 30).args[0]
    assert mean["exact"] == pytest.approx(model.log_px(x).mean().item(), abs=1e-12)
    assert mean["ELBO"] < mean["IWAE"] < mean["exact"] + 3 * found.rows["IWAE"].mean_se
    assert mean["ELBO"] < mean["AIS"] < mean["reverse AIS"] + 3 * found.width[1]
    assert abs(found.width[0]) < 0.1 and found.upper == "reverse AIS" and found.crossings == []
    text = str(found)
    assert text.startswith("log p(x) of 30 simulated data, nats per datum\n  ELBO         >= -")
    assert (
        "\nThe bracket is crossed: AIS lies 0.0" in text
        and "\n  reverse AIS  <= -" in text
        and "endless samples" in text
    )


def test_rows_of_one_set_of_weights_are_their_closed_forms(model, guide):
    """Of a Gaussian q: log p - KL, log p, log p + 1/2 log(1 + chi2); every datum within 4 standard errors."""
    x = simulate(model, 3).args[0]
    found = weighed(model, guide, [x], 20_000)
    exact = model.posterior(x)
    p = Gaussian(exact.loc.detach(), exact.covariance_matrix[0].detach())
    q, truth = Gaussian(p.loc + 0.3, 1.5 * p.cov), model.log_px(x).detach()
    cubo = truth + chi2(p, q).log1p() / 2
    for name, value in (("ELBO", truth - kl(q, p)), ("IWAE", truth), ("CUBO", cubo)):
        assert ((found[name].log_px - value).abs() < 4 * found[name].log_px_se).all(), name
        assert found[name].log_px_se.max() < 0.05
    assert (found["ELBO"].ess == 20_000).all() and found["ELBO"].khat.isnan().all()


def test_real_data_have_no_upper_bound_and_the_disagreement_is_stated(model, guide):
    found = sandwich(model, guide, simulate(model, 30).args[0], **{**QUICK, "temperatures": 2})
    assert "reverse AIS" not in found.rows and found.upper is None and math.isnan(found.width[0])
    assert found.complete and "AIS less IWAE is" in str(found) and "30 real data" in str(found)


@pytest.mark.parametrize(
    "ais, iwae, words",
    [
        (-1.0, -2.0, "importance sampling falls short"),
        (-2.0, -1.0, "AIS has not converged"),
        (-1.0, -1.01, "they agree"),
    ],
)
def test_each_disagreement_has_its_advice(ais, iwae, words):
    found = Sandwich({"IWAE": row("lower", iwae, 0.02), "AIS": row("lower", ais, 0.02)}, simulated=False)
    assert any(words in line for line in found.verdict)
    assert found.gap("AIS", "IWAE") == pytest.approx((ais - iwae, 0.02 * 2**0.5 / 2))


def test_a_lower_bound_above_an_upper_one_is_called_out():
    rows = {"IWAE": row("lower", -1.5, 0.02), "AIS": row("lower", -1.0, 0.02), "reverse AIS": row("upper", -1.2, 0.02)}
    found = Sandwich(rows, simulated=True)
    assert found.crossings == [("AIS", "reverse AIS")] and found.lower == "AIS"
    assert found.verdict == [
        "AIS lies 0.200 ± 0.014 nats above reverse AIS, which it should not exceed: at least one of the two has not "
        "converged; take more temperatures and chains"
    ]
    within = Sandwich({**rows, "reverse AIS": row("upper", -1.03, 0.02)}, simulated=True)
    assert within.crossings == [] and within.width == pytest.approx((-0.03, 0.0141), abs=1e-4)
    assert within.verdict == [
        "the bracket is crossed: AIS lies 0.030 ± 0.014 nats above reverse AIS, within errors, which say how well log "
        "p(x) is known; take more chains"
    ]
    open_one = Sandwich({**rows, "reverse AIS": row("upper", -0.97, 0.02)}, simulated=True)
    assert open_one.verdict == ["log p(x) lies between AIS and reverse AIS, 0.030 ± 0.014 nats apart"]


def test_cubo_below_a_lower_bound_bounds_nothing():
    rows = {"AIS": row("lower", -1.0, 0.02), "CUBO": row("upper", -1.5, 0.02)}
    found = Sandwich(rows, simulated=True)
    assert found.crossings == [] and found.upper is None
    assert found.verdict == ["CUBO lies below AIS: its estimate from few samples is too low here, and bounds nothing"]


def test_with_one_chain_the_error_is_the_scatter_over_data():
    low, high = torch.tensor([0.0, 1.0, 2.0, 3.0]).double(), torch.tensor([1.0, 1.5, 3.0, 5.0]).double()
    rows = {
        "AIS": row("lower", 0.0, math.nan, log_px=low),
        "reverse AIS": row("upper", 0.0, math.nan, log_px=high),
    }
    value, se = Sandwich(rows, simulated=True).width
    assert value == pytest.approx(1.125) and se == pytest.approx((high - low).std().item() / 2)


def test_after_an_interrupt_what_was_done_is_kept(model, guide, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["dlvm.evidence.log_px.sandwich"], "annealed", interrupted)
    found = sandwich(model, guide, 5, **QUICK)
    assert list(found.rows) == ["ELBO", "IWAE", "exact", "CUBO"] and not found.complete
    assert "Interrupted: rows are missing" in str(found)
    monkeypatch.setattr(sys.modules["dlvm.evidence.log_px.sandwich"], "score", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sandwich(model, guide, 5, **QUICK)


@pytest.mark.slow
def test_the_random_state_is_untouched(model, guide):
    before = torch.get_rng_state()
    sandwich(model, guide, 3, num_particles=5, num_chains=2, temperatures=2, leaps=1)
    assert torch.equal(torch.get_rng_state(), before)
