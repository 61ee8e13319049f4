"""Programs that differentiate by themselves: a guide by log p(x, z), a model by a potential."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn

from dlvm.evidence import defensive, importance, prior_sampling
from dlvm.inference import ELBO, IWAE, SVI, check, evaluate, fit, log_weights

pytestmark = pytest.mark.usefixtures("float64")
X = torch.randn(12, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LOG_PX = dist.Normal(0.0, 2.0**0.5).log_prob(X[:, 0])


def newton():
    """z ~ N(0, 1), x ~ N(z, 1), and one Newton step on log p(x, z) from a net's guess: the posterior, whatever the net.

    The model's location is the gradient of z^2 / 2, which is z.
    """
    torch.manual_seed(0)
    net = nn.Linear(1, 1)

    def potential(z):
        z = z if z.requires_grad else z.detach().requires_grad_()
        return torch.autograd.grad(z.square().sum() / 2, z, create_graph=True)[0]

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(potential(z), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            z = net(x)
            log_joint = (dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(x)).sum()
            (slope,) = torch.autograd.grad(log_joint, z, create_graph=True)
            pyro.sample("z", dist.Normal(z + slope / 2, 0.5**0.5).to_event(1))

    return model, guide, net


def test_it_is_checked_trained_and_weighed():
    """The posterior as guide makes every bound log p(x)."""
    model, guide, _ = newton()
    exact = LOG_PX.mean().item()
    for objective in (Trace_ELBO(), Trace_ELBO(num_particles=3, vectorize_particles=True), ELBO(), IWAE(3)):
        check(model, guide, objective, X)
    svi = SVI(model, guide, partial(torch.optim.Adam, lr=0.01), IWAE(3), engine="eager")
    for loss in (svi.evaluate_loss(X), *(svi.step(X) for _ in range(5)), svi.evaluate_loss(X)):
        assert loss == pytest.approx(-LOG_PX.sum().item())
    (epoch,) = fit(model, guide, ELBO(), [(X,)], [(X,)], epochs=1, engine="eager")
    assert (epoch.train, epoch.valid) == pytest.approx((exact, exact))
    assert torch.allclose(log_weights(model, guide, X, num_particles=4), LOG_PX)
    found = evaluate(model, guide, X, num_particles=20)
    assert (found.elbo, found.log_px) == pytest.approx((exact, exact))
    assert importance(model, guide, X, num_particles=20).log_px == pytest.approx(LOG_PX)


def test_other_estimates_of_it_are_right():
    model, guide, _ = newton()
    exact = LOG_PX.mean().item()
    for found in (prior_sampling(model, X, num_particles=20_000), defensive(model, guide, X, num_particles=2000)):
        assert abs(found.mean - exact) < 0.02


def test_gradients_go_through_it():
    """z = g + (x - 2 g) / 4 for a guess g of the net: log p(x, z) has the slope (x - 2 z) / 2 in the net's bias."""
    model, _, net = newton()

    def guide(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            z = net(x)
            log_joint = (dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(x)).sum()
            (slope,) = torch.autograd.grad(log_joint, z, create_graph=True)
            pyro.sample("z", dist.Delta(z + slope / 4, event_dim=1))

    before, guess = net.bias.item(), net(X).detach()
    SVI(model, guide, partial(torch.optim.SGD, lr=1.0), ELBO(), engine="eager").step(X)
    z = guess + (X - 2 * guess) / 4
    assert net.bias.item() - before == pytest.approx(((X - 2 * z) / 2).sum().item())


def test_another_error_stays_as_it_is():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            torch.autograd.grad(torch.zeros(()), z)
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    _, guide, _ = newton()
    with pytest.raises(RuntimeError, match="does not require grad"):
        check(model, guide, ELBO(), X)
