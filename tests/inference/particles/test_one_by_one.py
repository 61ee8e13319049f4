"""Particles one after the other: for programs that take no particles on the left, and then as right as in parallel."""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close
from pyro.infer import Trace_ELBO
from torch import nn

from dlvm.distributions import DiagonalNormal
from dlvm.guides import Amortized, Diagonal, latents
from dlvm.inference import (
    CUBO,
    ELBO,
    IWAE,
    MIWAE,
    REBAR,
    RELAX,
    RWS,
    STL,
    SVI,
    VIMCO,
    DisARM,
    DReG,
    GumbelSoftmax,
    Renyi,
    ScoreFunction,
    Separate,
    StraightThrough,
    WakeSleep,
    check,
    evaluate,
    free_bits,
    log_weights,
    tempered,
    total_correlation,
)
from dlvm.inference.particles import weights
from dlvm.nets import MLP

pytestmark = pytest.mark.usefixtures("float64")
X = torch.randn(16, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def named(value: object) -> str:
    """An id without addresses, which differ from process to process."""
    return getattr(value, "__name__", repr(value))


def linear(turn):
    """A linear Gaussian VAE with its posterior, and its log p(x); the decoder is ``turn(dec, z, x)``."""
    torch.manual_seed(0)
    dec = nn.Linear(1, 3)
    w, b = dec.weight.detach()[:, 0], dec.bias.detach()
    precision = 1 + w @ w

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(turn(dec, z, x), 1.0).to_event(1), obs=x)

    def guide(x, observing=False):
        with pyro.plate("data", len(x)):
            loc = ((x - b) @ w / precision)[:, None]
            pyro.sample("z", dist.Normal(loc, precision.rsqrt()).to_event(1))
            if observing:
                pyro.sample("sign", dist.Normal(x[:, 0], 1.0), obs=x[:, 1], infer={"is_auxiliary": True})

    return model, guide, dist.MultivariateNormal(b, torch.outer(w, w) + torch.eye(3)).log_prob(X)


def indexed(dec, z, x):
    up, loc = x[:, 0] > 0, torch.zeros_like(x)
    loc[up], loc[~up] = dec(z[up]), dec(z[~up])
    return loc


MIXING = {
    "view": lambda dec, z, x: dec(z.view(-1, 1)),
    "columns": lambda dec, z, x: dec(z.reshape(len(x), -1)[:, :1]),
    "index": indexed,
    "loop": lambda dec, z, x: torch.stack([dec(z[i]) for i in range(len(x))]),
    "softmax": lambda dec, z, x: dec(z) + 0 * torch.softmax(z, 1) + z.mean(1, keepdim=True) - z.mean(-1, keepdim=True),
}


@pytest.mark.parametrize("turn", MIXING.values(), ids=MIXING)
def test_weights_of_nets_that_mix_particles_are_those_of_each_alone(turn):
    """The posterior as guide makes every weight log p(x), which nothing but the right particles gives."""
    model, guide, log_px = linear(turn)
    check(model, guide, IWAE(5), X)
    assert_close(log_weights(model, guide, X, num_particles=5), log_px.expand(5, -1))
    assert_close(evaluate(model, guide, X, num_particles=30).elbo, log_px.mean())
    assert_close(IWAE(5).loss(model, guide, X), -log_px.sum())


def test_a_pair_that_takes_particles_runs_once(caplog):
    model, guide, log_px = linear(lambda dec, z, x: dec(z))
    assert weights.in_parallel(weights.Pair(model, guide), (X,), {})
    assert not weights.in_parallel(weights.Pair(*linear(MIXING["view"])[:2]), (X,), {})


def test_batch_norm_in_training_normalises_each_particle_by_itself():
    """As wide as the batch is long, it takes a particle dimension without a word."""
    torch.manual_seed(0)
    net, before = nn.Sequential(nn.Linear(1, 16), nn.BatchNorm1d(16), nn.Linear(16, 3)), None
    model, guide, _ = linear(lambda dec, z, x: pyro.module("net", net)(z))
    before = net[1].running_mean.clone()
    check(model, guide, ELBO(1), X)
    assert torch.equal(net[1].running_mean, before)
    with torch.no_grad():
        one = sum(ELBO(1).loss(model, guide, X) for _ in range(400)) / 400
        five = sum(ELBO(5).loss(model, guide, X) for _ in range(80)) / 80
    assert abs(one - five) < 0.01 * abs(one)


def test_one_particle_needs_no_others():
    """A program that cannot run with a dimension on the left is stepped and checked as stock Pyro steps it."""
    model, guide, log_px = linear(lambda dec, z, x: dec(z) if z.dim() == 2 else 1 / 0)
    check(model, guide, ELBO(1), X)
    assert_close(SVI(model, guide, lambda p: torch.optim.Adam(p, 1e-3), ELBO(1)).step(X), -log_px.sum())


def test_pyros_own_objectives_are_told_not_to_run_particles_in_parallel():
    model, guide, _ = linear(MIXING["columns"])
    with pytest.raises(ValueError, match="pass vectorize_particles=False"):
        check(model, guide, Trace_ELBO(3, vectorize_particles=True), X)


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.prior, self.likelihood = nn.Linear(2, 4), nn.Linear(2, 3)

    def forward(self, x):
        pyro.module("layers", self)
        with pyro.plate("data", len(x)):
            h = pyro.sample("h", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc, scale = self.prior(h).chunk(2, -1)
            z = pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))
            pyro.sample("x", dist.Normal(self.likelihood(z), 0.7).to_event(1), obs=x)


def layers():
    torch.manual_seed(3)
    model = Layers()
    return model, Amortized(latents(model, X), MLP(3, 8), DiagonalNormal), [*model.parameters()]


def binary():
    torch.manual_seed(3)
    net = nn.Linear(2, 3)

    def model(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Bernoulli(0.4 * torch.ones(2)).to_event(1))
            pyro.sample("x", dist.Normal(net(y), 0.7).to_event(1), obs=x)

    return model, Diagonal(latents(model, X), MLP(3, 8)), [*net.parameters()]


CONTINUOUS = [
    ELBO(4),
    ELBO(4, STL()),
    ELBO(4, analytic_kl=True),
    IWAE(4),
    IWAE(4, STL()),
    IWAE(4, DReG()),
    IWAE(4, ScoreFunction(everywhere=True)),
    Renyi(0.5, 4, DReG()),
    CUBO(2.0, 4, DReG()),
    MIWAE(2, 2),
    RWS(4),
    RWS(4, doubly=True),
    WakeSleep(4),
    Separate(IWAE(4), MIWAE(2, 2)),
    tempered(IWAE(4), 0.5),
    free_bits(ELBO(4), 0.2),
    total_correlation(ELBO(4), 3.0, "h"),
]
OF_JUMPS = (ScoreFunction(), VIMCO(), GumbelSoftmax(), StraightThrough(), DisARM(), REBAR(), RELAX(MLP(5, 1).double()))
DISCRETE = [IWAE(4, estimator) for estimator in OF_JUMPS]
STANDARD_NORMAL = torch.distributions.normal._standard_normal
EPS = torch.randn(2, 4, 16, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize(
    "make, objective", [*((layers, o) for o in CONTINUOUS), *((binary, o) for o in DISCRETE)], ids=named
)
def test_losses_and_gradients_are_those_of_the_same_draws_in_parallel(monkeypatch, make, objective):
    model, guide, parameters = make()
    pair = weights.Pair(model, guide)

    def gradients(one_by_one):
        noise = iter(EPS.transpose(0, 1).flatten(0, 1) if one_by_one else EPS)  # both sites of a particle, or of all
        torch.manual_seed(5)
        with monkeypatch.context() as patch:
            if make is layers:
                patch.setattr(
                    "torch.distributions.normal._standard_normal", lambda shape, **w: _next(noise, shape, **w)
                )
            for user in ("particles.weights", "estimators.relaxations"):
                patch.setattr(f"dlvm.inference.{user}.in_parallel", lambda *_, **__: not one_by_one)
            loss = deepcopy(objective).differentiable_loss(*pair.programs, X)  # what is fitted begins anew
            return loss, torch.autograd.grad(loss, [*parameters, *guide.parameters()], allow_unused=True)

    objective.loss(*pair.programs, X)  # finds what is remembered of the pair
    loss, found = gradients(one_by_one=False)
    other_loss, others = gradients(one_by_one=True)
    assert_close(other_loss, loss)
    for a, b in zip(others, found, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert_close(a, b)


def _next(noise, shape, **how):
    """The next of given noise; dreams come after it."""
    found = next(noise, None)
    return STANDARD_NORMAL(shape, **how) if found is None else found


def test_what_the_guide_observes_counts_nothing():
    """As the classifier of contrib.cevae, whose observed sites train it and are no draws."""
    model, guide, log_px = linear(lambda dec, z, x: dec(z))

    observing = partial(guide, observing=True)
    check(model, observing, IWAE(5), X)
    assert_close(log_weights(model, observing, X, num_particles=5), log_px.expand(5, -1))
    assert_close(IWAE(5, DReG()).loss(model, observing, X), -log_px.sum())
