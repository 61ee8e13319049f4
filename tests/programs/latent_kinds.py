"""Latents of odd kinds: angles, simplices by sticks, rates of survival; and scales that leave no density."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch.distributions import constraints

from programs.brought import Pair, brought, noise
from programs.exact import Features, decoder, encoder, linear_gaussian

POSITIVE = constraints.positive
ESTIMATES = "evaluate.*|importance|log_weights"


@brought("an angle with a von Mises posterior: its support is said to be all real numbers")
def angle() -> Pair:
    x, var, prior = noise(12, 2), 0.8, 0.5

    def model(x):
        k = pyro.param("k", torch.tensor(prior), POSITIVE)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.VonMises(torch.zeros(()), k))
            pyro.sample("x", dist.Normal(torch.stack([z.cos(), z.sin()], -1), var**0.5).to_event(1), obs=x)

    def guide(x):
        k = pyro.param("k_of_q", torch.tensor(prior), POSITIVE)
        a, b = k + x[:, 0] / var, x[:, 1] / var
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.VonMises(torch.atan2(b, a), (a * a + b * b).sqrt()))

    u = x.double() / var
    there = (torch.stack([u[:, 0] + prior, u[:, 1]]).norm(dim=0), torch.tensor(prior).double())
    known = -math.log(2 * math.pi * var) - (x.double().square().sum(1) + 1) / (2 * var)
    answer = known + torch.special.i0(there[0]).log() - torch.special.i0(there[1]).log()
    batches = [x[:7], x[7:]]
    return Pair(model, guide, batches, answer, discrete=True, x_dim=2, encoder=lambda: Features(2), tolerance=5e-3)


@brought("weights of a simplex broken off a stick, counts of several totals")
def sticks() -> Pair:
    draws = torch.Generator().manual_seed(2)
    totals = (3, 5, 9, 3, 20, 7, 2, 2, 11, 6, 4, 8)
    x = torch.stack([torch.bincount(torch.randint(0, 4, (n,), generator=draws), minlength=4) for n in totals]).float()

    def weights(v):
        one = torch.ones_like(v[..., :1])
        return torch.cat([v, one], -1) * torch.cat([one, (1 - v).cumprod(-1)], -1)

    def after(x):
        return x.sum(1, keepdim=True) - x.cumsum(1)[:, :-1]

    def model(x):
        a = pyro.param("a", torch.tensor(1.0), POSITIVE)
        with pyro.plate("data", len(x)):
            v = pyro.sample("v", dist.Beta(a.expand(3), 2.0).to_event(1))
            pyro.sample("x", dist.Multinomial(20, weights(v)), obs=x)

    def guide(x):
        a, b = pyro.param("a_of_q", torch.tensor(1.0), POSITIVE), pyro.param("b_of_q", torch.tensor(2.0), POSITIVE)
        with pyro.plate("data", len(x)):
            pyro.sample("v", dist.Beta(a + x[:, :-1], b + after(x)).to_event(1))

    def log_beta(a, b):
        return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)

    n, a, b = x.double(), torch.tensor(1.0).double(), torch.tensor(2.0).double()
    known = torch.lgamma(n.sum(1) + 1) - torch.lgamma(n + 1).sum(1)
    answer = known + (log_beta(a + n[:, :-1], b + after(n)) - log_beta(a, b)).sum(1)
    return Pair(model, guide, [x[:7], x[7:]], answer, x_dim=4, encoder=lambda: Features(4))


@brought("survival with censoring by a mask: an Exponential where it was seen, a factor where it was not")
def survival() -> Pair:
    t, died, a, b = noise(12).abs() + 0.2, torch.arange(12) % 3 > 0, 2.0, 1.5

    def model(t, died):
        shape = pyro.param("a", torch.tensor(a), POSITIVE)
        with pyro.plate("data", len(t)):
            z = pyro.sample("z", dist.Gamma(shape, b))
            with poutine.mask(mask=died):
                pyro.sample("t", dist.Exponential(z), obs=t)
            with poutine.mask(mask=~died):
                pyro.factor("alive", -z * t)

    def guide(t, died):
        shape, rate = pyro.param("a_of_q", torch.tensor(a), POSITIVE), pyro.param("b_of_q", torch.tensor(b), POSITIVE)
        with pyro.plate("data", len(t)):
            pyro.sample("z", dist.Gamma(shape + died.float(), rate + t))

    u, d = t.double(), died.double()
    answer = a * math.log(b) - math.lgamma(a) + torch.lgamma(a + d) - (a + d) * (b + u).log()
    encode = lambda: Features(2, lambda t, died: torch.stack([t, died.float()], 1))  # noqa: E731
    return Pair(model, guide, [(t[:7], died[:7]), (t[7:], died[7:])], answer, encoder=encode)


def _linear(posterior, of_latent: float = 1.0, of_guide: float = 1.0) -> Pair:
    dec, x = decoder(), noise(12, 3)
    enc = encoder(dec)

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=of_latent):
                z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)), poutine.scale(scale=of_guide):
            pyro.sample("z", posterior(*enc(x).chunk(2, -1)).to_event(1))

    return Pair(model, guide, [x[:7], x[7:]], linear_gaussian(dec, x), exact=False, parts=(dec, enc), x_dim=3)


def _normal(loc, log_sd):
    return dist.Normal(loc, log_sd.exp())


@brought("annealing inside both programs, as dmm.py: p^beta has no evidence", {ESTIMATES: "scale"}, ESTIMATES)
def annealed_inside() -> Pair:
    return _linear(_normal, 0.25, 0.25)


@brought(
    "a scale on the latent of the model alone: p and q count otherwise", {".*": "scale"}, f"check.*|fit.*|{ESTIMATES}"
)
def scaled_in_the_model_alone() -> Pair:
    return _linear(_normal, 0.25)
