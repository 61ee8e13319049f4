"""Pairs on which the expectation of every gradient is a finite sum, by quadrature or by enumeration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from dlvm.inference import REBAR, RELAX, DisARM, GumbelRao, GumbelSoftmax, Objective, Separate, StraightThrough

DRAWING = (DisARM, REBAR, RELAX, GumbelRao, GumbelSoftmax, StraightThrough)  # more than the site's own values
DRAWS = 200_000


class Program(PyroModule):
    """Half of a pair with one latent site: some numbers, and a function (numbers, x) that runs in a data plate."""

    def __init__(self, name: str, numbers: list[float], run: Callable[[Tensor, Tensor], None]):
        super().__init__(name)
        self.numbers, self.run = nn.Parameter(torch.tensor(numbers, dtype=torch.float64)), run

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            self.run(self.numbers, x)


def bits_model(theta: Tensor, x: Tensor) -> None:
    """Two binary causes of two binary observations."""
    z = pyro.sample("z", dist.Bernoulli(logits=theta[:2]).to_event(1))
    pyro.sample("x", dist.Bernoulli(logits=z @ theta[2:].view(2, 2)).to_event(1), obs=x)


def bits_guide(phi: Tensor, x: Tensor) -> None:
    pyro.sample("z", dist.Bernoulli(logits=phi).to_event(1))


def gauss_model(theta: Tensor, x: Tensor) -> None:
    """One real cause of a real observation."""
    z = pyro.sample("z", dist.Normal(theta[:1], 1.0).to_event(1))
    pyro.sample("x", dist.Normal(theta[1] * z, 1.0).to_event(1), obs=x)


def gauss_guide(phi: Tensor, x: Tensor) -> None:
    pyro.sample("z", dist.Normal(phi[:1], phi[1:].exp()).to_event(1))


class Forced(Messenger):
    """Around everything: the site z takes given values, themselves or what its distribution makes of them as noise."""

    def __init__(self, values: Tensor, noise: bool):
        super().__init__()
        self.values, self.noise = values, noise

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] == "z" and msg["value"] is None and not msg["done"]:
            fn = getattr(msg["fn"], "base_dist", msg["fn"])
            msg["value"] = fn.loc + fn.scale * self.values if self.noise else self.values
            msg["done"] = True


class Bed:
    """A pair whose every expectation is a finite sum.

    Attributes:
        model, guide: the programs, made anew so that nothing is left from one cell to the next.
    """

    def __init__(self, discrete: bool):
        self.discrete = discrete
        if discrete:
            self.model = Program("model", [0.3, -0.5, 1.2, -0.7, 0.4, 0.9], bits_model)
            self.guide = Program("guide", [0.8, -0.2], bits_guide)
            self.x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        else:
            self.model = Program("model", [0.2, 0.9], gauss_model)
            self.guide = Program("guide", [0.1, -0.45], gauss_guide)
            self.x = torch.tensor([[0.7]], dtype=torch.float64)

    @property
    def parameters(self) -> list[Tensor]:
        return [self.model.numbers, self.guide.numbers]

    def log_density(self, program: Program, z: Tensor) -> Tensor:
        """Sum of the log-densities of a program at values z (n, dim), shape (n,)."""
        x = self.x.expand(len(z), -1)
        trace = poutine.trace(poutine.condition(program, data={"z": z})).get_trace(x)
        trace.compute_log_prob()
        sites = (site for site in trace.nodes.values() if site["type"] == "sample")
        first, *others = (site["log_prob"] for site in sites if "log_prob" in site)
        return sum(others, first)

    def truth(self, objective: Objective) -> Tensor:
        """The gradient of E bound(log w), with respect to all parameters, from densities alone: no draw is moved.

        Each half follows the bound that is its own, downhill where that is an upper one.
        """
        if isinstance(objective, Separate):
            return torch.cat([self.truth(objective.model)[: self.split], self.truth(objective.guide)[self.split :]])
        z, log_weight = self.tuples(objective.num_particles)
        flat = z.flatten(0, 1)
        log_q = self.log_density(self.guide, flat).view(z.shape[:2])
        log_w = self.log_density(self.model, flat).view(z.shape[:2]) - log_q
        expected = ((log_q.sum(0) + log_weight).exp() * objective.bound(log_w)).sum()
        theta, phi = torch.autograd.grad(expected, self.parameters)
        return torch.cat([torch.zeros_like(theta), -phi] if objective.bound.side == "upper" else [theta, phi])

    @property
    def split(self) -> int:
        return self.model.numbers.numel()

    def tuples(self, num_particles: int) -> tuple[Tensor, Tensor]:
        """All K-tuples of values (K, n, dim), and the log-weights that make a sum over n of densities an integral."""
        if self.discrete:
            one = torch.tensor(list(itertools.product([0.0, 1.0], repeat=2)), dtype=torch.float64)
            index = torch.cartesian_prod(*[torch.arange(len(one))] * num_particles)
            return one[index].transpose(0, 1), torch.zeros(len(index), dtype=torch.float64)
        eps, weight = noise(num_particles)
        standard = dist.Normal(torch.zeros((), dtype=torch.float64), 1.0)
        z = 0.05 + 0.75 * eps
        base = standard.log_prob(eps).sum(0) - num_particles * math.log(0.75)
        return z.unsqueeze(-1), weight.log() - base

    def expectation(self, objective: Objective) -> tuple[Tensor, Tensor | None]:
        """The expectation of the estimated gradient, and its standard error if it had to be sampled."""
        if isinstance(objective.estimator, DRAWING):
            return self.sampled(objective)
        if self.discrete:
            values, _ = self.tuples(objective.num_particles)
            weight = self.log_density(self.guide, values.flatten(0, 1)).view(values.shape[:2]).sum(0).exp().detach()
        else:
            eps, weight = noise(objective.num_particles)
            values = eps.unsqueeze(-1)
        with Forced(values, noise=not self.discrete):
            return -self.gradient(objective, weight), None

    def gradient(self, objective: Objective, weight: Tensor) -> Tensor:
        """Of the loss on n copies of x, weighted."""
        scaled = [poutine.scale(program, scale=weight) for program in (self.model, self.guide)]
        loss = objective.differentiable_loss(*scaled, self.x.expand(len(weight), -1))
        found = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        return torch.cat([torch.zeros_like(p) if g is None else g for g, p in zip(found, self.parameters, strict=True)])

    def sampled(self, objective: Objective) -> tuple[Tensor, Tensor]:
        pyro.set_rng_seed(0)
        count = 20
        ones = torch.full((DRAWS // count,), count / DRAWS, dtype=torch.float64)
        draws = torch.stack([-self.gradient(objective, ones) for _ in range(count)])
        return draws.mean(0), draws.std(0) / math.sqrt(count)


def noise(num_particles: int) -> tuple[Tensor, Tensor]:
    """Points (K, n) and weights (n,) of the standard normal: a fine grid for two particles, Gauss-Hermite for more."""
    if num_particles == 2:
        axis = torch.linspace(-8.5, 8.5, 801, dtype=torch.float64)
        weight = torch.distributions.Normal(0.0, 1.0).log_prob(axis).exp() * (axis[1] - axis[0])
    else:
        axis, weight = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(22))
        weight = weight / weight.sum()
    index = torch.cartesian_prod(*[torch.arange(len(axis))] * num_particles)
    return axis[index].T, weight[index].prod(-1)
