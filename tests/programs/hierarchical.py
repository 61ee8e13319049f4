"""Latents that data share, groups of data, layers of latents, priors on weights."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import autoguide
from pyro.infer.autoguide import init_to_value
from pyro.nn import PyroModule, PyroSample
from torch import nn

from programs.brought import Pair, brought, noise
from programs.exact import Features, gaussian

SHARED = {"evaluate.*|importance|log_weights": "share|global|per datum|of its own"}
TOGETHER = {"evaluate.*|importance": "no site of the model lies in a plate.*one datum together"}


@brought(
    "eight schools: a mean, a spread and an effect per school; two integrals on a grid, the others in closed form",
    SHARED,
)
def eight_schools() -> Pair:
    y = torch.tensor([28.0, 8, -3, 7, -1, 1, 18, 12]) / 10
    sigma = torch.tensor([15.0, 10, 16, 11, 9, 11, 10, 18]) / 10

    def model(y, sigma):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        tau = pyro.sample("tau", dist.LogNormal(-0.5, 0.5))
        with pyro.plate("schools", len(y)):
            theta = pyro.sample("theta", dist.Normal(mu, tau))
            pyro.sample("obs", dist.Normal(theta, sigma), obs=y)

    def guide(y, sigma):
        at, spread = pyro.param("at", torch.tensor([0.5, -0.6])), pyro.param("spread", torch.tensor([0.45, 0.55]))
        mu = pyro.sample("mu", dist.Normal(at[0], spread[0]))
        tau = pyro.sample("tau", dist.LogNormal(at[1], spread[1]))
        precision = tau**-2 + sigma**-2
        with pyro.plate("schools", len(y)):
            loc = (mu * tau**-2 + y * sigma**-2) / precision
            pyro.sample("theta", dist.Normal(loc, precision.rsqrt()))

    mu, log_tau = torch.cartesian_prod(*[torch.linspace(-6, 6, 241).double()] * 2).T
    log_tau = -0.5 + 0.5 * log_tau
    scale = (log_tau.exp().square()[:, None] + sigma.double().square()).sqrt()
    each = dist.Normal(mu[:, None], scale).log_prob(y.double()).sum(1)
    prior = dist.Normal(0.0, 1.0).log_prob(mu) + dist.Normal(-0.5, 0.5).log_prob(log_tau)
    answer = (each + prior).logsumexp(0) + torch.tensor(12 / 240 * 6 / 240).log()
    settings = dict(count=8, exact=False, plate=None, samples=4000, tolerance=0.02)
    return Pair(model, guide, [(y, sigma)], answer, **settings)


@brought("patients within hospitals: the latent of a hospital in one plate, what is measured in two")
def two_levels() -> Pair:
    x = noise(6, 4)

    def model(x):
        sd = pyro.param("sd", torch.tensor(1.0))
        hospitals, patients = pyro.plate("hospitals", x.shape[0], dim=-2), pyro.plate("patients", x.shape[1], dim=-1)
        with hospitals:
            h = pyro.sample("h", dist.Normal(0.0, 1.0).expand([len(x), 1]))
            with patients:
                z = pyro.sample("z", dist.Normal(h, 1.0))
                pyro.sample("x", dist.Normal(z, sd), obs=x)

    def guide(x):
        gain = pyro.param("gain", torch.tensor(0.5))
        n = x.shape[1]
        hospitals, patients = pyro.plate("hospitals", x.shape[0], dim=-2), pyro.plate("patients", n, dim=-1)
        precision = torch.tensor(1 + n / 2)
        with hospitals:
            h = pyro.sample("h", dist.Normal((gain * x).sum(1, keepdim=True) / precision, precision.rsqrt()))
            with patients:
                pyro.sample("z", dist.Normal(0.5 * (h + x), 0.5**0.5))

    answer = gaussian(x, 0.0, 2 * torch.eye(4) + torch.ones(4, 4))
    settings = dict(plate="hospitals", encoder=lambda: Features(4), x_dim=4)
    return Pair(model, guide, [(x,)], answer, **settings)


@brought("a mean that all data share and a latent of each", SHARED)
def shared_and_local() -> Pair:
    x = noise(6) + 1

    def model(x):
        sd = pyro.param("sd", torch.tensor(1.0))
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z, sd), obs=x)

    def guide(x):
        gain = pyro.param("gain", torch.tensor(0.5))
        precision = torch.tensor(1 + len(x) / 2)
        mu = pyro.sample("mu", dist.Normal((gain * x).sum() / precision, precision.rsqrt()))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 * (mu + x), 0.5**0.5))

    answer = gaussian(x[None], 0.0, 2 * torch.eye(6) + torch.ones(6, 6))[0]
    return Pair(model, guide, [(x,)], answer, count=6, plate=None)


@brought("a Bayesian regression: PyroSample weights, AutoMultivariateNormal set to the posterior", SHARED)
def bayesian_regression() -> Pair:
    x, y = noise(10, 2), noise(10, seed=3)

    class Regression(PyroModule):
        def __init__(self):
            super().__init__("regression")
            self.linear = PyroModule[nn.Linear](2, 1, bias=False)
            self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 2]).to_event(2))

        def forward(self, x, y=None):
            mean = self.linear(x).squeeze(-1)
            with pyro.plate("data", len(x)):
                return pyro.sample("obs", dist.Normal(mean, 1.0), obs=y)

    precision = torch.eye(2) + x.T @ x
    at, tril = precision.inverse() @ x.T @ y, torch.linalg.cholesky(precision.inverse())
    model = Regression()
    guide = autoguide.AutoMultivariateNormal(model, init_to_value(values={"regression.linear.weight": at[None]}), 1.0)
    guide(x, y)
    with torch.no_grad():
        guide.scale = tril.diagonal().clone()
        guide.scale_tril = tril / tril.diagonal()[:, None]
    answer = gaussian(y[None], 0.0, x @ x.T + torch.eye(10))[0]
    return Pair(model, guide, [(x, y)], answer, count=10, plate=None, parts=(guide,))


@brought("is a coin fair? the SVI tutorial: a loop over data, one observed site each, no plate", TOGETHER)
def coin() -> Pair:
    data = torch.tensor([1.0, 1, 1, 1, 1, 1, 0, 0, 0, 0])

    def model(data):
        f = pyro.sample("latent_fairness", dist.Beta(10.0, 10.0))
        for i in range(len(data)):
            pyro.sample(f"obs_{i}", dist.Bernoulli(f), obs=data[i])

    def guide(data):
        a = pyro.param("alpha_q", torch.tensor(16.0), constraint=dist.constraints.positive)
        b = pyro.param("beta_q", torch.tensor(14.0), constraint=dist.constraints.positive)
        pyro.sample("latent_fairness", dist.Beta(a, b))

    def log_beta(a, b):
        a, b = torch.tensor(a).double(), torch.tensor(b).double()
        return a.lgamma() + b.lgamma() - (a + b).lgamma()

    answer = log_beta(16.0, 14.0) - log_beta(10.0, 10.0)
    return Pair(model, guide, [(data,)], answer, count=1, plate=None)


def _layers(bottom_up: bool) -> Pair:
    """z2 ~ N(0, 1), z1 ~ N(0.9 z2, 1), x ~ N(w z1, I)."""
    x, w = noise(12, 3), torch.tensor([1.0, -0.6, 0.8])
    prior = 1 + 0.9**2  # variance of z1

    def model(x):
        weight, a = pyro.param("w", w.clone()), pyro.param("a", torch.tensor(0.9))
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(a * z2, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z1 * weight, 1.0).to_event(1), obs=x)

    def guide(x):
        weight, a = pyro.param("v", w.clone()), pyro.param("c", torch.tensor(0.9))
        seen, message = weight @ weight, (x @ weight)[:, None]
        with pyro.plate("data", len(x)):
            if bottom_up:
                one = 1 / prior + seen
                z1 = pyro.sample("z1", dist.Normal(message / one, one.rsqrt()).to_event(1))
                two = 1 + a**2
                pyro.sample("z2", dist.Normal(a * z1 / two, two.rsqrt()).to_event(1))
            else:
                said = seen / (1 + seen)  # of z2's effect on z1, by x
                two = 1 + a**2 * said
                z2 = pyro.sample("z2", dist.Normal(a * message / (1 + seen) / two, two.rsqrt()).to_event(1))
                pyro.sample("z1", dist.Normal((a * z2 + message) / (1 + seen), (1 + seen).rsqrt()).to_event(1))

    answer = gaussian(x, 0.0, prior * torch.outer(w, w) + torch.eye(3))
    return Pair(model, guide, [(b,) for b in x.split(6)], answer, encoder=lambda: Features(3), x_dim=3)


@brought("two layers of latents, inferred from the bottom")
def layers_bottom_up() -> Pair:
    return _layers(True)


@brought("two layers of latents, inferred from the top")
def layers_top_down() -> Pair:
    return _layers(False)
