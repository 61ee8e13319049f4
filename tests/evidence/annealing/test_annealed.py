"""Annealed importance sampling: unbiased for any number of temperatures, from below and in reverse from above."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import log_px_grid
from torch import Tensor

from dlvm.distributions import Bernoulli
from dlvm.evidence.annealing.annealed import annealed, reverse_annealed
from dlvm.evidence.annealing.chains import Chains
from dlvm.evidence.annealing.path import linear, sigmoid
from dlvm.evidence.estimate import Estimate
from dlvm.evidence.simulate import Simulated, simulate
from dlvm.models import PPCA, VAE
from dlvm.nets import MLP

WEIGHT = torch.tensor([[0.8, 0.3], [0.0, 0.6], [0.7, -0.5]])


@pytest.fixture
def model(float64) -> PPCA:
    return PPCA(WEIGHT.double(), torch.tensor([0.1, -0.2, 0.0]).double(), 0.8)


def posterior(model: PPCA, shift: float = 0.0, spread: float = 1.0):
    """A guide: the exact posterior, moved and widened."""

    def guide(x):
        q = model.posterior(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(q.loc.detach() + shift, spread * q.covariance_matrix.detach()))

    return guide


def scores(found: Estimate, truth: Tensor) -> Tensor:
    """(mean weight / p(x)^(+-1) - 1) over its standard error, per datum."""
    sign = -1 if found.side == "upper" else 1
    share = (sign * (found.log_px - truth)).exp()
    return (share - 1) / (share * found.log_px_se)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "temperatures, guided",
    [
        (5, False),
        *(pytest.param(t, g, marks=SLOW) for t in (1, 2, 5, 20) for g in (False, True) if (t, g) != (5, False)),
    ],
)
def test_the_mean_weight_is_p_x_for_any_number_of_temperatures(model, temperatures, guided):
    """1000 chains for each of 8 data; every mean within 4 standard errors, and their scores scatter by 1."""
    x = simulate(model, 8).args[0]
    guide = posterior(model, 0.3, 1.5) if guided else None
    found = annealed(model, x, guide, num_chains=1000, temperatures=temperatures, leaps=2, rows=8)
    z = scores(found, model.log_px(x))
    assert found.side == "lower" and found.num_samples == 1000
    assert z.abs().max() < 4 and z.square().mean() < 3


@pytest.mark.slow
@pytest.mark.parametrize("temperatures", [1, 3, 10])
def test_the_mean_reverse_weight_is_one_over_p_x(model, temperatures):
    """One chain for each of 3000 exact draws of a posterior of the same x; within 4 standard errors."""
    x = torch.tensor([[0.5, -0.3, 0.2]]).double().expand(3000, -1)
    pairs = Simulated((x,), {"z": model.posterior(x).sample()})
    found = reverse_annealed(
        model, pairs, posterior(model, 0.2, 1.5), num_chains=1, temperatures=temperatures, leaps=2, rows=3000
    )
    share = (model.log_px(x) - found.log_px).exp()
    assert abs(share.mean() - 1) < 4 * share.std() / 3000**0.5 < 0.2
    assert found.log_px.mean() > model.log_px(x).mean()


@pytest.mark.slow
@pytest.mark.parametrize("guided", [False, pytest.param(True, marks=SLOW)])
def test_lower_exact_upper(model, guided):
    """On simulated data the exact value lies in between, within 3 standard errors, and the bracket is narrow."""
    pairs = simulate(model, 40)
    guide = posterior(model, 0.3, 1.5) if guided else None
    settings = dict(guide=guide, num_chains=8, temperatures=40, leaps=3, rows=40)
    lower, upper = annealed(model, *pairs.args, **settings), reverse_annealed(model, pairs, **settings)
    truth = model.log_px(*pairs.args).mean()
    assert lower.mean - 3 * lower.mean_se < truth < upper.mean + 3 * upper.mean_se
    assert upper.mean - lower.mean < 0.2
    assert "acceptance 0." in lower.method and lower.method.startswith(
        "AIS from the " + ("guide" if guided else "prior")
    )


@SLOW
def test_the_gap_shrinks_as_one_over_t(model):
    """Of E log w, one chain for each of 3000 copies of x, at T = 10 and 40."""
    x = 2.0 + torch.zeros(3000, 3)
    truth = model.log_px(x[:1]).item()
    gaps = [truth - annealed(model, x, None, 1, t, 5, linear, rows=3000).mean for t in (10, 40)]
    assert 0.16 < gaps[1] / gaps[0] < 0.36


@pytest.mark.parametrize("engine", ["captured", pytest.param("eager", marks=SLOW)])
def test_the_exact_posterior_leaves_nothing_to_estimate(model, engine):
    pairs = simulate(model, 5)
    truth = model.log_px(*pairs.args)
    settings = dict(guide=posterior(model), num_chains=3, temperatures=3, leaps=1, engine=engine)
    for found in (annealed(model, *pairs.args, **settings), reverse_annealed(model, pairs, **settings)):
        torch.testing.assert_close(found.log_px, truth.detach(), atol=1e-9, rtol=0)
        assert found.log_px_se.max() < 1e-9


def gamma_poisson(x: Tensor) -> Tensor:
    with pyro.plate("data", len(x)):
        rate = pyro.sample("z", dist.Gamma(torch.tensor(2.5), torch.tensor(0.7)))
        return pyro.sample("x", dist.Poisson(rate), obs=x)


def test_a_constrained_latent(float64):
    """Gamma-Poisson is the negative binomial distribution."""
    x = torch.tensor([0.0, 1.0, 4.0, 12.0])
    truth = dist.GammaPoisson(torch.tensor(2.5), torch.tensor(0.7)).log_prob(x)
    found = annealed(gamma_poisson, x, num_chains=400, temperatures=15, leaps=2)
    assert scores(found, truth).abs().max() < 4 and found.log_px_se.max() < 0.2


@SLOW
def test_a_decoder_against_quadrature(float64):
    model = VAE(2, Bernoulli(MLP(2, 8, 10)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    pairs = simulate(model, 6)
    (x,) = pairs.args

    def log_joint(z: Tensor) -> Tensor:
        prior = -0.5 * z.square().sum(-1) - torch.log(torch.tensor(2 * torch.pi))
        return prior + model.likelihood(z).base_dist.log_prob(x[:, None]).sum(-1)

    truth = log_px_grid(log_joint, points=200).detach()
    lower = annealed(model, x, num_chains=200, temperatures=30, leaps=5)
    assert scores(lower, truth).abs().max() < 4 and lower.log_px_se.max() < 0.1
    upper = reverse_annealed(model, pairs, num_chains=50, temperatures=30, leaps=5)
    assert upper.mean > truth.mean() - 3 * upper.mean_se and abs(upper.mean - truth.mean()) < 0.3


def test_chunks_of_another_size_are_the_same_data(model):
    """7 data in chunks of 3, 3 and 1, with one chain: every estimate is near the truth of its own datum."""
    x = torch.linspace(-4, 4, 7).double()[:, None] * torch.ones(3)
    found = annealed(model, x, posterior(model), num_chains=1, temperatures=3, leaps=1, rows=3)
    torch.testing.assert_close(found.log_px, model.log_px(x).detach(), atol=1e-9, rtol=0)
    assert found.log_px_se.isnan().all() and found.num_samples == 1 and found.complete


def test_reverse_chains_start_at_the_draws_of_their_own_chunk(model, monkeypatch):
    seen = []
    monkeypatch.setattr(Chains, "settled", lambda self, path, u, size: seen.append(u) or u)
    pairs = simulate(model, 5)
    reverse_annealed(model, pairs, num_chains=2, temperatures=1, leaps=1, rows=2)
    assert torch.equal(torch.cat([u[0] for u in seen]), pairs.values["z"]) and torch.equal(seen[0][0], seen[0][1])


def test_after_an_interrupt_the_first_part_is_kept(model, monkeypatch):
    calls, weights = [], Chains.weights

    def interrupted(self, *args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return weights(self, *args)

    monkeypatch.setattr(Chains, "weights", interrupted)
    found = annealed(model, torch.zeros(6, 3), num_chains=2, temperatures=3, leaps=1, rows=2)
    assert (found.num_data, found.complete, found.asked) == (2, False, 6)
    assert "interrupted after 2 of 6 data" in str(found)


def test_the_random_state_is_untouched_and_a_seed_is_an_estimate(model):
    x, before = torch.zeros(2, 3), torch.get_rng_state()
    first, again, other = (annealed(model, x, num_chains=2, temperatures=3, leaps=1, seed=seed) for seed in (0, 0, 1))
    reverse_annealed(model, simulate(model, 2), num_chains=2, temperatures=3, leaps=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.log_px, again.log_px) and not torch.equal(first.log_px, other.log_px)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda m: reverse_annealed(m, torch.zeros(2, 3)), TypeError, r"must come from simulate\(model, n\)"),
        (lambda m: annealed(m, torch.full((2, 3), torch.nan)), ValueError, "outside its likelihood's support"),
        (lambda m: annealed(m, torch.zeros(2, 3), num_chains=0), ValueError, "num_chains must be at least 1, got 0"),
        (lambda m: annealed(m, torch.zeros(2, 3), temperatures=0), ValueError, "temperatures must be at least 1"),
        (lambda m: annealed(m, torch.zeros(2, 3), target_acceptance=1.0), ValueError, "between 0 and 1, got 1.0"),
        (lambda m: annealed(m, torch.zeros(2, 3), schedule="linear"), TypeError, "schedule must be a function"),
        (lambda m: annealed(m, torch.zeros(2, 3), schedule=lambda t: sigmoid(t).flip(0)), ValueError, "rise from 0"),
    ],
)
def test_refused_in_words(model, call, error, message):
    with pytest.raises(error, match=message):
        call(model)


def two_sites(x):
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("z", dist.Normal(a, 1.0).to_event(1))


@pytest.mark.parametrize("guide, sites", [(two_sites, r"\['a', 'z'\]"), (lambda x: None, r"\[\]")])
def test_a_guide_with_other_sites_is_refused(model, guide, sites):
    with pytest.raises(ValueError, match=rf"guide draws the sites {sites}, expected .*start from the prior"):
        annealed(model, torch.zeros(1, 3), guide)


def test_a_model_with_nan_parameters_is_refused(model):
    x = torch.zeros(2, 3)
    with torch.no_grad():
        model.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN weights"), pyro.validation_enabled(False):
        annealed(model, x, num_chains=2, temperatures=2, leaps=1)
