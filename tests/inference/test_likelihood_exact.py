"""Maximum likelihood and priors on parameters, against closed forms."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import GOLDEN_1, X_1, assert_close
from torch import nn

from guides import Diagonal, latents
from inference import (
    IWAE,
    MAP,
    MaximumLikelihood,
    fit,
)
from models import PPCA
from nets import MLP

STANDARD = partial(dist.Normal, 0.0, 1.0)
XS = torch.stack([X_1, -X_1, X_1 + 1])


def build(Guide=Diagonal, dtype=torch.float32):
    pyro.set_rng_seed(1)
    model = PPCA(GOLDEN_1.weight, GOLDEN_1.mu, 0.5).to(dtype)
    return model, Guide(latents(model, XS.to(dtype)), MLP(4, 3, activation=nn.Tanh)).to(dtype)


def gradient(objective, model, guide, xs, parameters):
    pyro.set_rng_seed(2)
    return torch.autograd.grad(objective.differentiable_loss(model, guide, xs), parameters)


@pytest.mark.usefixtures("float64")
def test_a_prior_counts_once_for_all_batches():
    model, guide = build(dtype=torch.float64)
    names = ["weight", "loc", "log_scale"]
    parameters = [getattr(model, name) for name in names]
    batches = [XS[:1], XS[1:]]
    prior = {"weight": STANDARD(), "lo[cg]*": dist.Laplace(0.5, 2.0)}
    total = 0.0
    for batch in batches:
        inner, aided = IWAE(2), MAP(IWAE(2), prior, num_data=3)
        plain, with_prior = (gradient(objective, model, guide, batch, parameters) for objective in (inner, aided))
        total = total + torch.cat([(b - a).flatten() for a, b in zip(plain, with_prior, strict=True)])
    log_prior = STANDARD().log_prob(model.weight).sum()
    log_prior = log_prior + sum(dist.Laplace(0.5, 2.0).log_prob(p).sum() for p in parameters[1:])
    wanted = torch.autograd.grad(-log_prior, parameters)
    assert_close(total, torch.cat([g.flatten() for g in wanted]), 1e-9)


class Regression(pyro.nn.PyroModule):
    """x ~ N(u, 1/4), given inputs u that are conditioned on."""

    def __init__(self):
        super().__init__("model")
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, u, x=None):
        with pyro.plate("data", len(u)):
            return pyro.sample("x", dist.Normal(u @ self.weight, 0.5), obs=x)


@pytest.mark.usefixtures("float64")
def test_maximum_likelihood_and_map_find_least_squares_and_ridge():
    pyro.set_rng_seed(0)
    u = torch.randn(40, 3)
    x = u @ torch.tensor([1.0, -2.0, 0.5]) + 0.5 * torch.randn(40)
    for objective, ridge in ((MaximumLikelihood(), 0.0), (MAP(MaximumLikelihood(), dist.Normal(0.0, 0.1), 40), 25.0)):
        model = Regression()
        adam = partial(torch.optim.Adam, lr=0.05)
        schedule = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.99)
        data = [(u[:20], x[:20]), (u[20:], x[20:])] if ridge == 0 else [(u, x)]
        settings = {"epochs": 800, "optimizer": adam, "scheduler": schedule, "progress": False, "engine": "eager"}
        *_, last = fit(model, lambda *args: None, objective, data, **settings)
        exact_weight = torch.linalg.solve(u.T @ u / 0.25 + 4 * ridge * torch.eye(3), u.T @ x / 0.25)
        assert_close(model.weight, exact_weight, 2e-3)
        log_px = dist.Normal(u @ model.weight, 0.5).log_prob(x).mean()
        assert_close(last.train, log_px, 1e-3)
