"""Noise of a model's own: integrated out where log p(x) is, whoever runs beside whom; a guide's is part of its q."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import RenyiELBO, Trace_ELBO
from torch.nn import functional as F

from dlvm.evidence import importance
from dlvm.inference import CUBO, ELBO, IWAE, SVI, check, evaluate, fit, log_weights
from dlvm.inference.particles import weights

pytestmark = pytest.mark.usefixtures("float64")
X = 1.7 * torch.randn(400, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LOG_PX = dist.Normal(0.0, math.sqrt(3.0)).log_prob(X[:, 0])  # z, eps and the likelihood's noise: one each


def hidden(z, x):
    with poutine.block():
        return pyro.sample("eps", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))


def partly_shared(z, x):
    return math.sqrt(0.5) * (torch.randn(len(x), 1) + torch.randn_like(z))


def by_numpy(z, x):
    return torch.from_numpy(np.random.standard_normal((len(x), 1)))


SHARED = {
    "randn": lambda z, x: torch.randn(len(x), 1),
    "randn_like x": lambda z, x: torch.randn_like(x),
    "hidden": hidden,
    "partly": partly_shared,
    "numpy": by_numpy,
}
OWN = {
    "randn_like z": lambda z, x: torch.randn_like(z),
    "dropout of 2 z": lambda z, x: F.dropout(torch.ones_like(z), 0.5, training=True) - 1,
}


def noisy(noise, of_the_guide=None):
    """x = z + eps + u with noise eps of the model's own, and a guide that is wider than the posterior."""
    width = torch.nn.Parameter(torch.tensor(0.9))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z + noise(z, x), 1.0).to_event(1), obs=x)

    def guide(x):
        moved = 0.0 if of_the_guide is None else of_the_guide(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 3 + moved, pyro.param("width", width)).to_event(1))

    return model, guide


def parallel(model, guide, **how):
    return weights.in_parallel(weights.Pair(model, guide), (X,), {}, **how)


@pytest.mark.parametrize("noise", SHARED.values(), ids=SHARED)
def test_each_particle_draws_noise_of_its_own(noise, caplog):
    """Shared by particles, it would give log p(x | eps), 0.3 nats below; its ELBO is the same either way."""
    model, guide = noisy(noise)
    assert not parallel(model, guide)
    assert parallel(model, guide, linear=True)
    with torch.no_grad(), caplog.at_level("INFO", "dlvm"):
        log_w = log_weights(model, guide, X, num_particles=300)
    error = log_w.exp().std(0) / log_w.exp().mean(0) / math.sqrt(300)
    found, right = log_w.logsumexp(0) - math.log(300), LOG_PX
    bias, within = (error.square().mean() / 2).item(), 5 * (error.square().sum().sqrt() / len(X)).item()
    assert abs((found - right).mean().item() + bias) < within < 0.1


@pytest.mark.parametrize("noise", OWN.values(), ids=OWN)
def test_noise_of_the_latents_shape_is_drawn_in_parallel(noise):
    assert parallel(*noisy(noise))


def test_a_net_that_mixes_particles_is_found_beneath_noise():
    assert not parallel(*noisy(lambda z, x: torch.randn_like(z) + z.mean(tuple(range(z.dim() - 2)))))


def test_a_guide_may_share_its_noise():
    """q(z | x, eps) is a density for each eps: particles stay in parallel, and the mean weight is p(x)."""
    model, guide = noisy(lambda z, x: 0.0, lambda x: 0.5 * torch.randn(len(x), 1))
    assert parallel(model, guide)
    right = dist.Normal(0.0, math.sqrt(2.0)).log_prob(X[:, 0])
    found = evaluate(model, guide, X, num_particles=300)
    assert abs(found.log_px - right.mean().item()) < 0.02


def test_a_state_that_changes_at_every_run_is_no_noise():
    """A schedule of the model's own: what differs is when it runs, and particles one by one would have other turns."""
    turns = []

    def counting(z, x):
        turns.append(1)
        return 0.1 * len(turns)

    assert parallel(*noisy(counting))


def test_what_is_evaluated_and_trained_integrates_noise_out():
    model, guide = noisy(SHARED["randn"])
    exact = LOG_PX.mean().item()
    assert abs(evaluate(model, guide, X, num_particles=300).log_px - exact) < 0.02
    assert abs(importance(model, guide, X, num_particles=300).mean - exact) < 0.02
    assert abs(-IWAE(100).loss(model, guide, X) / len(X) - exact) < 0.03
    assert -CUBO(200).loss(model, guide, X) / len(X) > exact - 0.02
    (epoch,) = fit(model, guide, IWAE(100), [(X,)], epochs=1, seed=0, optimizer=partial(torch.optim.SGD, lr=1e-9))
    assert abs(epoch.train - exact) < 0.03


def test_recorded_steps_draw_it_anew_and_as_pyro_does():
    losses = []
    for engine in ("eager", "captured"):
        pyro.clear_param_store()
        svi = SVI(*noisy(SHARED["randn"]), partial(torch.optim.SGD, lr=1e-9), IWAE(2), engine=engine)
        pyro.set_rng_seed(3)
        losses.append([svi.step(X) for _ in range(5)])
    assert len(set(losses[0])) == 5
    assert losses[0] == pytest.approx(losses[1], abs=1e-9)


def test_pyros_objectives_are_told_where_it_matters():
    """The mean of log-weights does not mind shared noise; the logarithm of their mean does."""
    model, guide = noisy(SHARED["randn"])
    check(model, guide, Trace_ELBO(num_particles=4, vectorize_particles=True), X)
    check(model, guide, RenyiELBO(num_particles=4), X)
    with pytest.raises(ValueError, match="vectorize_particles=False.*noise of the model's own"):
        check(model, guide, RenyiELBO(num_particles=4, vectorize_particles=True), X)


def test_elbo_in_parallel_is_that_of_particles_one_by_one():
    model, guide = noisy(SHARED["randn"])
    with torch.no_grad():
        four = [ELBO(4).loss(model, guide, X) / len(X) for _ in range(60)]
        one = [ELBO(1).loss(model, guide, X) / len(X) for _ in range(240)]
    a, b = torch.tensor(four), torch.tensor(one)
    assert abs((a.mean() - b.mean()).item()) < 5 * math.hypot((a.std() / 60**0.5).item(), (b.std() / 240**0.5).item())
