"""Maximum likelihood and priors on parameters, against closed forms."""

from __future__ import annotations

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import GOLDEN_1, X_1, assert_close
from torch import nn

from dlvm.guides import Diagonal, latents
from dlvm.inference import IWAE, MAP, MaximumLikelihood, fit
from dlvm.models import PPCA
from dlvm.nets import MLP

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


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_maximum_likelihood_and_map_find_least_squares_and_ridge():
    pyro.set_rng_seed(0)
    u = torch.randn(40, 3)
    x = u @ torch.tensor([1.0, -2.0, 0.5]) + 0.5 * torch.randn(40)
    for objective, ridge in ((MaximumLikelihood(), 0.0), (MAP(MaximumLikelihood(), dist.Normal(0.0, 0.1), 40), 25.0)):
        model = Regression()
        adam = partial(torch.optim.Adam, lr=0.3)
        schedule = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.96)
        data = [(u[:20], x[:20]), (u[20:], x[20:])] if ridge == 0 else [(u, x)]
        settings = {"epochs": 170, "optimizer": adam, "scheduler": schedule, "progress": False, "engine": "eager"}
        *_, last = fit(model, lambda *args: None, objective, data, **settings)
        exact_weight = torch.linalg.solve(u.T @ u / 0.25 + 4 * ridge * torch.eye(3), u.T @ x / 0.25)
        assert_close(model.weight, exact_weight, 2e-3)
        log_px = dist.Normal(u @ model.weight, 0.5).log_prob(x).mean()
        assert_close(last.train, log_px, 1e-3)


class BeliefNet(pyro.nn.PyroModule):
    """x_d ~ Bernoulli(sigmoid(b_d + sum_{j < d} W_dj x_j)), everything observed."""

    def __init__(self, dim: int):
        super().__init__("model")
        self.weight, self.bias = nn.Parameter(torch.randn(dim, dim)), nn.Parameter(torch.randn(dim))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            logits = x @ self.weight.tril(-1).T + self.bias
            return pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


@pytest.mark.usefixtures("float64")
def test_a_visible_belief_net_is_normalised_and_two_starts_end_alike():
    """Its likelihood is concave, so that maximum likelihood has one answer: the odds of the data, two by two."""
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    counts = torch.tensor([9.0, 4, 2, 7, 3, 8, 5, 6])
    xs, found = every.repeat_interleave(counts.long(), 0), []
    for seed in (0, 1):
        pyro.set_rng_seed(seed)
        model, objective = BeliefNet(3), MaximumLikelihood()
        total = sum(math.exp(-objective.loss(model, lambda x: None, row[None])) for row in every)
        assert_close(total, 1.0, 1e-12)
        optimizer = torch.optim.LBFGS(
            model.parameters(), max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe"
        )

        def closure(model=model, objective=objective, optimizer=optimizer):
            optimizer.zero_grad()
            loss = objective.differentiable_loss(model, lambda x: None, xs)
            loss.backward()
            return loss

        optimizer.step(closure)
        found.append(torch.cat([model.weight.detach().tril(-1).flatten(), model.bias.detach()]))
    assert_close(found[0], found[1], 1e-5)
    first, second = counts.view(2, 2, 2).sum((1, 2)), counts.view(2, 2, 2).sum(2)
    assert_close(found[0][9], torch.log(first[1] / first[0]), 1e-6)
    odds = torch.log(second[:, 1] / second[:, 0])
    assert_close(found[0][[10, 3]], torch.stack([odds[0], odds[1] - odds[0]]), 1e-6)
