"""Pairs with discrete sites of every kind whose expectations are finite sums, for estimators that must be exact."""

from __future__ import annotations

import math
from itertools import product

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from oracles.forcing import Lattice, gradient

X = torch.tensor([[0.4, -0.9]], dtype=torch.float64)


def bits(*shape: int) -> Tensor:
    """All arrays of bits of this shape, one a row."""
    rows = list(product([0.0, 1.0], repeat=math.prod(shape)))
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, *shape)


def numbers(count: int, seed: int) -> Tensor:
    drawn = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.requires_grad_()


def seen(x: Tensor, loc: Tensor) -> None:
    pyro.sample("x", dist.Normal(torch.stack([loc, loc.sin()], -1), 0.8).to_event(1), obs=x)


def pair(draw, explain) -> tuple[Lattice, list[Tensor]]:
    """Programs whose latent sites are drawn by one function, with parameters of their own in model and guide."""
    theta, phi = numbers(10, 1), numbers(10, 2)

    def model(x):
        with pyro.plate("data", len(x)):
            seen(x, explain(theta, draw(theta, x)))

    def guide(x):
        with pyro.plate("data", len(x)):
            draw(phi, x)

    return Lattice(model, guide, X, nodes=24), [theta, phi]


def bernoulli(name: str, logits: Tensor) -> Tensor:
    return pyro.sample(name, dist.Bernoulli(logits=logits))


def one_site():
    """Two bits in one site, one of them all but certain."""

    def draw(p, x):
        return pyro.sample("z", dist.Bernoulli(logits=torch.stack([p[0], p[1] + 3]).expand(len(x), 2)).to_event(1))

    found, parameters = pair(draw, lambda p, z: (z * p[2:4]).sum(-1) + p[4] * z.prod(-1))
    return found._replace(values={"z": bits(2)}), parameters


def two_sites():
    """Two sites, drawn independently from logits that they share."""

    def draw(p, x):
        return bernoulli("y", p[0].expand(len(x))), bernoulli("z", (p[0] + p[1]).expand(len(x)))

    found, parameters = pair(draw, lambda p, v: p[2] * v[0] + p[3] * v[1] + p[4] * v[0] * v[1])
    return found._replace(values={"y": bits(), "z": bits()}), parameters


def two_layers():
    """The lower site from the upper one, in both programs."""

    def draw(p, x):
        y = bernoulli("y", p[0].expand(len(x)))
        logits = torch.stack([p[1] + p[2] * y, p[1] - p[5] * y], -1)
        return y, pyro.sample("z", dist.Bernoulli(logits=logits).to_event(1))

    found, parameters = pair(draw, lambda p, v: p[3] * v[0] + (v[1] * p[6:8]).sum(-1) + p[4] * v[0] * v[1][..., 0])
    return found._replace(values={"y": bits(), "z": bits(2)}), parameters


def classes():
    """A class as a number and another as a vector."""

    def draw(p, x):
        y = pyro.sample("y", dist.Categorical(logits=p[:3].expand(len(x), 3)))
        return y, pyro.sample("z", dist.OneHotCategorical(logits=p[3:6].expand(len(x), 3)))

    found, parameters = pair(draw, lambda p, v: p[6:9][v[0]] + (v[1] * p[1:4]).sum(-1) * (1 + v[0]))
    return found._replace(values={"y": torch.arange(3), "z": torch.eye(3)}), parameters


def mixed():
    """A real number before a bit that it decides."""

    def draw(p, x):
        w = pyro.sample("w", dist.Normal(p[0].expand(len(x)), 0.3 + p[1].square()))
        return w, bernoulli("y", p[2] + p[3] * w)

    found, parameters = pair(draw, lambda p, v: p[4] * v[0] + p[5] * v[1] + p[6] * v[0] * v[1])
    return found._replace(values={"y": bits()}, noise={"w": 1}), parameters


def mixed_below():
    """A real number before a bit, and another drawn from the bit."""

    def draw(p, x):
        w = pyro.sample("w", dist.Normal(p[0].expand(len(x)), 0.9))
        y = bernoulli("y", p[2] + p[3] * w)
        return w, y, pyro.sample("v", dist.Normal(p[5] * y + w, 0.7))

    found, parameters = pair(draw, lambda p, v: p[4] * v[0] + p[6] * v[1] * v[2] + p[7] * v[2])
    return found._replace(values={"y": bits()}, noise={"w": 1, "v": 1}, nodes=10), parameters


PROGRAMS = {make.__name__: make for make in (one_site, two_sites, two_layers, classes, mixed, mixed_below)}


def exact(objective, lattice: Lattice, parameters: list[Tensor]) -> Tensor:
    return gradient(lattice.expected(objective.bound, objective.num_particles), parameters)


def errors(objective, lattice: Lattice, parameters: list[Tensor], rows: int = 400, repeats: int = 30) -> Tensor:
    """By how many standard errors the mean of sampled gradients is off, (parameters,)."""
    pyro.set_rng_seed(0)
    x = lattice.x.expand(rows, -1)
    losses = (objective.differentiable_loss(lattice.model, lattice.guide, x) / rows for _ in range(repeats))
    found = -torch.stack([gradient(loss, parameters) for loss in losses])
    off, spread = found.mean(0) - exact(objective, lattice, parameters), found.std(0) / math.sqrt(repeats)
    return torch.where(spread > 1e-12, off / spread, torch.where(off.abs() > 1e-9, torch.inf, 0.0))
