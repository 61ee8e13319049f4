"""Chains per datum: a Geweke test that a broken kernel fails, the exact posterior's moments, rows, and refusals."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close
from pyro.nn import PyroModule

from dlvm.distributions import Bernoulli
from dlvm.evidence import PosteriorChains
from dlvm.evidence.annealing import hmc
from dlvm.guides import Diagonal, latents
from dlvm.inference import NonFinite, described
from dlvm.models import PPCA, VAE, GaussianMixture
from dlvm.nets import MLP

WEIGHT = torch.tensor([[1.5, 0.3], [-0.7, 1.1], [0.2, 0.4]])
MODEL = PPCA(WEIGHT, torch.tensor([1.0, 0.0, -1.0]), 0.6)
X = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))


class Positive(PyroModule):
    """z a rate, so that the map to its logarithm and the map's volume are at work; x = z + noise."""

    def forward(self, x=None, n=1):
        with pyro.plate("data", n if x is None else len(x)):
            z = pyro.sample("z", dist.Gamma(torch.tensor(3.0), torch.tensor(2.0)))
            return pyro.sample("x", dist.Normal(z.unsqueeze(-1), torch.tensor(0.7)).to_event(1), obs=x)


def _joint_draws(model, number):
    trace = pyro.poutine.trace(model).get_trace(n=number)
    return trace.nodes["z"]["value"].detach(), trace.nodes["x"]["value"].detach()


def _moments(z, x):
    """Functions of a joint draw, one row each."""
    z = z if z.dim() > 1 else z.unsqueeze(-1)
    return torch.cat([z, z.square(), x, x.square(), z[:, :1] * x], -1).double()


def geweke(model, number=10_000, rounds=6, size=0.4, leaps=4):
    """Standard scores of joint moments: forward draws against z by the kernel and x by the model, taken in turns.

    If the kernel keeps p(z | x), the second chain, started from a forward draw, has the joint distribution for ever.
    """
    z, x = _joint_draws(model, number)
    chains = PosteriorChains(model, x, leaps=leaps, rows=number, engine="captured")
    chains.u = chains._paths[number].target.flat({"z": z}).reshape(1, number, -1)
    chains._log_size = torch.tensor(size).log()
    for _ in range(rounds):
        chains.move(2, adapt=False)
        z = chains.values()["z"][0]
        x = pyro.poutine.condition(model, data={"z": z})(n=number).detach()
        chains.args = (x,)
    one, other = _moments(*_joint_draws(model, number)), _moments(z, x)
    return ((one.mean(0) - other.mean(0)) / ((one.var(0) + other.var(0)) / number).sqrt()).abs().max().item()


@pytest.mark.parametrize("model", [MODEL, Positive()], ids=["linear", "positive"])
def test_the_kernel_passes_a_geweke_test(model):
    pyro.set_rng_seed(0)
    assert geweke(model) < 4


def _without_last_half(field, point, velocity, weights, size, leaps):
    """A leapfrog that forgets to end with half a kick: no longer reversible."""
    size = size.unsqueeze(-1)
    for _ in range(leaps):
        velocity = velocity + size * point.slope(weights)
        point = field(point.u + size * velocity)
    return point, velocity


def _always_taken(field, point, weights, size, leaps=10):
    proposal, _ = hmc.leapfrog(field, point, torch.randn_like(point.u), weights, size, leaps)
    return proposal, torch.ones_like(proposal.terms[0])


FAULTS = {
    "half a kick": ("dlvm.evidence.annealing.hmc.leapfrog", _without_last_half),
    "always taken": ("dlvm.evidence.sampling.posterior_chains.transition", _always_taken),
    "no kinetic energy": (
        "dlvm.evidence.annealing.hmc.kinetic_energy",
        lambda velocity: torch.zeros(velocity.shape[:-1], dtype=torch.float64),
    ),
    "no volume": ("dlvm.evidence.target.Target.log_volume", lambda self, u: torch.zeros(u.shape[:-1])),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_kernel_fails_it(monkeypatch, fault):
    pyro.set_rng_seed(0)
    monkeypatch.setattr(*FAULTS[fault])
    assert geweke(Positive() if fault == "no volume" else MODEL) > 5


def test_draws_have_the_moments_of_the_exact_posterior():
    """2000 chains for each datum, a datum's with a step of its own scale; cut into batches of 4 and 2."""
    pyro.set_rng_seed(1)
    chains = PosteriorChains(MODEL, X, num_chains=2000, leaps=5, rows=4)
    chains.move(40)
    chains.move(10, adapt=False)
    z, exact = chains.values()["z"].double(), MODEL.posterior(X)
    assert z.shape == (2000, 6, 2) and 0.6 < chains.move(1, adapt=False) < 0.95
    scores = (z.mean(0) - exact.mean) / (exact.variance / 2000).sqrt()
    assert scores.abs().max() < 4.5
    away = z - exact.mean
    covariance = torch.einsum("cni,cnj->nij", away, away) / 2000
    bound = 5 * exact.variance.max() * math.sqrt(2 / 2000)
    assert (covariance - exact.covariance_matrix).abs().max() < bound


def test_rows_move_by_themselves_and_others_stay():
    pyro.set_rng_seed(0)
    chains = PosteriorChains(MODEL, X, num_chains=3)
    before = chains.u.clone()
    chains.move(2, torch.tensor([4, 1]))
    moved = (chains.u != before).any(-1).any(0)
    assert moved.tolist() == [False, True, False, False, True, False]
    assert_close(chains.values(torch.tensor([4]))["z"], chains.u[:, [4]])


def test_the_step_size_follows_the_acceptance_and_stands_still_when_told():
    pyro.set_rng_seed(0)
    chains = PosteriorChains(MODEL, X, num_chains=50, leaps=4, target_acceptance=0.6)
    size = chains.size
    chains.move(3, adapt=False)
    assert chains.size == size and chains.moves == 0
    chains.move(100)
    assert chains.size != size and abs(chains.move(50, adapt=False) - 0.6) < 0.1


def test_chains_start_where_they_are_told():
    pyro.set_rng_seed(0)
    guide = Diagonal(latents(MODEL, X), MLP(3, 4))
    with torch.no_grad():
        for parameter in guide.posteriors.parameters():
            parameter.zero_()
        guide.posteriors[0].head.bias[:2] = 100.0
    chains = PosteriorChains(MODEL, X, num_chains=2, start=guide)
    assert (chains.u - 100).abs().max() < 10
    again = PosteriorChains(MODEL, X, num_chains=2, start=chains.u)
    assert_close(again.u, chains.u)
    again.move()
    assert not torch.equal(again.u, chains.u)  # a copy


class Across(PyroModule):
    """Data in columns, as is to be said of it."""

    def forward(self, x):
        with pyro.plate("data", x.shape[1]):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1).expand(-1, 3), 1.0).to_event(1), obs=x.T)


def test_data_along_another_axis_are_taken_as_they_are_said_to_lie():
    model = described(Across(), per_datum={"x": 1})
    chains = PosteriorChains(model, [(X.T[:, :4],), (X.T[:, 4:],)], num_chains=2)
    assert_close(chains.args[0], X.T)
    before = chains.u.clone()
    chains.move(2, torch.tensor([5]))
    assert (chains.u != before).any(-1).any(0).tolist() == [False] * 5 + [True]


class Coin(PyroModule):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1).expand(-1, 3), 1.0).to_event(1), obs=x)


class Global(PyroModule):
    def forward(self, x):
        loc = pyro.sample("loc", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(loc, 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1).expand(-1, 3), 1.0).to_event(1), obs=x)


@pytest.mark.parametrize(
    "make, kind, words",
    [
        (lambda: PosteriorChains(Coin(), X), ValueError, "discrete"),
        (lambda: PosteriorChains(GaussianMixture(2, 3), X), ValueError, "all summed out"),
        (lambda: PosteriorChains(Global(), X), ValueError, "outside the plate over data"),
        (lambda: PosteriorChains(VAE(2, Bernoulli(MLP(2, 3))), X), ValueError, "support"),
        (lambda: PosteriorChains(MODEL, [(X[:3],), (X[3:, :2],)]), ValueError, "same shapes"),
        (lambda: PosteriorChains(MODEL, X, start=torch.zeros(1, 5, 2)), ValueError, "chains of other data"),
        (lambda: PosteriorChains(MODEL, X, start=torch.full((1, 6, 2), torch.nan)), ValueError, "finite"),
        (lambda: PosteriorChains(MODEL, X, start=torch.zeros(1, 6, 2).long()), TypeError, "floats"),
        (lambda: PosteriorChains(MODEL, X, start=lambda x: None), ValueError, "latent sites"),
        (lambda: PosteriorChains(MODEL, X).move(rows=torch.tensor([6])), ValueError, "6 data"),
        (lambda: PosteriorChains(MODEL, X).move(rows=torch.tensor([1, 1])), ValueError, "twice"),
        (lambda: PosteriorChains(MODEL, X).move(rows=[1]), TypeError, "torch.arange"),
    ],
)
def test_refusals_name_the_remedy(make, kind, words):
    with pytest.raises(kind, match=words):
        make()


def test_chains_that_cannot_move_are_no_draws():
    """One that starts where the density is 0 in single precision: its slope is NaN or infinite, and so it is told."""
    start = torch.zeros(2, 6, 2)
    start[1, 4] = 1e30
    chains = PosteriorChains(MODEL, X, num_chains=2, start=start)
    with pytest.raises(NonFinite, match="1 of 12 chains are, datum 4"):
        chains.move()
