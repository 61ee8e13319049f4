"""Expectations over all that a guide may draw, in one call: each row is one outcome, scaled by its probability."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from oracles.enumeration import GOLDEN_SBN, X_SBN, configurations
from oracles.quadrature import gauss_hermite


class Forced(Messenger):
    """Sites take given values, and reparametrised Gaussian ones the value at a given noise.

    Both are {site: tensor (num_particles, rows, *event_shape)}, without the first dimension for one particle.
    """

    def __init__(self, values: Mapping[str, Tensor], noise: Mapping[str, Tensor] | None = None):
        super().__init__()
        self.values, self.noise = values, noise or {}

    def _pyro_sample(self, msg):
        name, fn = msg["name"], msg["fn"]
        if name in self.values or name in self.noise:
            given = self.values.get(name, self.noise.get(name))
            rows = given.shape[: given.dim() - fn.event_dim] if name in self.values else given.shape[:-1]
            msg["fn"] = fn = fn.expand(rows)
            msg["value"] = given if name in self.values else push(fn, given.reshape(rows + fn.event_shape))
            msg["done"] = True


class Tempered(Messenger):
    """Sites count ``beta`` times."""

    def __init__(self, beta: float, *sites: str):
        super().__init__()
        self.beta, self.sites = beta, sites

    def _pyro_sample(self, msg):
        if msg["name"] in self.sites:
            msg["scale"] = msg["scale"] * self.beta


def push(fn: dist.Distribution, noise: Tensor) -> Tensor:
    """Where a reparametrised Gaussian, or a flow on top of one, takes its noise."""
    if isinstance(fn, dist.TransformedDistribution):
        z = push(fn.base_dist, noise)
        for step in fn.transforms:
            z = step(z)
        return z
    if hasattr(fn, "scale_tril"):
        return fn.mean + (fn.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)
    return fn.mean + fn.stddev * noise


class Lattice(NamedTuple):
    """Every outcome of K particles of one datum x: discrete sites at each of their values, noise at quadrature nodes.

    model, guide: programs of one argument, in a plate over rows; x (1, x_dim) is repeated.
    values: {discrete site: its values, one per row}; noise: {Gaussian site: how many numbers it is}.
    """

    model: Callable
    guide: Callable
    x: Tensor
    values: Mapping[str, Tensor] = {}  # noqa: RUF012
    noise: Mapping[str, int] = {}  # noqa: RUF012
    nodes: int = 12

    def outcomes(self, num_particles: int) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Values and noise of all K particles in each row, and the log mass of the noise, (rows,)."""
        points, log_mass = gauss_hermite(self.nodes, sum(self.noise.values())) if self.noise else (None, torch.zeros(1))
        axes = [range(len(rows)) for rows in self.values.values()] + [range(len(log_mass))]
        single = torch.tensor(list(product(*axes)))
        rows = torch.cartesian_prod(*[torch.arange(len(single))] * num_particles).reshape(-1, num_particles)
        picked = single[rows.T].unbind(-1)
        values = {name: rows[index] for (name, rows), index in zip(self.values.items(), picked, strict=False)}
        noise = {}
        if self.noise:
            parts = points[picked[-1]].split(list(self.noise.values()), -1)
            noise = dict(zip(self.noise, parts, strict=True))
        if num_particles == 1:
            values, noise = ({name: part[0] for name, part in found.items()} for found in (values, noise))
        return values, noise, log_mass[picked[-1]].sum(0)

    def programs(self, num_particles: int) -> tuple[Callable, Callable, Tensor, Tensor]:
        """The guide forced through all outcomes, its data, log w (K, rows) and the outcomes' probabilities (rows,)."""
        values, noise, log_mass = self.outcomes(num_particles)
        guide, rows = Forced(values, noise)(self.guide), self.x.expand(len(log_mass), *self.x.shape[1:])
        plate = pyro.plate("all particles", num_particles, dim=-2)
        drawn = poutine.trace(plate(guide) if num_particles > 1 else guide).get_trace(rows)
        replayed = poutine.replay(self.model, trace=drawn)
        joint = poutine.trace(plate(replayed) if num_particles > 1 else replayed).get_trace(rows)
        for trace in (drawn, joint):
            trace.compute_log_prob()
        log_q, log_p = ({n: s["log_prob"] for n, s in t.nodes.items() if "log_prob" in s} for t in (drawn, joint))
        log_w = (sum(log_p.values()) - sum(log_q.values())).reshape(num_particles, -1)
        drawn_at = (drawn.nodes[name]["unscaled_log_prob"].reshape(num_particles, -1).sum(0) for name in values)
        chosen = sum(drawn_at, log_mass)
        return guide, rows, log_w, chosen.exp()

    def expected(self, bound: Callable[[Tensor], Tensor], num_particles: int) -> Tensor:
        """E bound(log w), a 0-d tensor whose gradient by autograd is exact; ``bound`` maps (K, rows) to (rows,)."""
        _, _, log_w, mass = self.programs(num_particles)
        return mass @ bound(log_w)

    def expected_gradient(self, objective, parameters: list[Tensor]) -> Tensor:
        """Minus the mean over all outcomes of the gradient of ``objective``'s loss, flat: it climbs the bound."""
        guide, rows, _, mass = self.programs(objective.num_particles)
        mass = mass.detach()
        pair = (poutine.scale(program, scale=mass) for program in (self.model, guide))
        return -gradient(objective.differentiable_loss(*pair, rows), parameters)

    def gradients(self, objective, parameters: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The gradient at each outcome, (rows, parameters), and the outcomes' probabilities, (rows,)."""
        guide, rows, _, mass = self.programs(objective.num_particles)
        each = torch.ones_like(mass, requires_grad=True)  # a gradient is linear in the scale of each row
        pair = (poutine.scale(program, scale=each) for program in (self.model, guide))
        loss = objective.differentiable_loss(*pair, rows)
        total = torch.cat([g.flatten() for g in torch.autograd.grad(-loss, parameters, create_graph=True)])
        found = [torch.autograd.grad(g, each, retain_graph=True)[0] for g in total]
        return torch.stack(found, -1), mass.detach()


def gradient(value: Tensor, parameters: list[Tensor]) -> Tensor:
    """Of a 0-d tensor, flat, with zeros where a parameter has no part in it."""
    if not value.requires_grad:
        return torch.zeros(sum(p.numel() for p in parameters))
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    pairs = zip(found, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if part is None else part).flatten() for part, p in pairs])


def golden_sbn(x: Tensor = X_SBN) -> tuple[Lattice, list[Tensor]]:
    """The golden SBN as programs, every outcome of h, and its parameters, phi last."""
    parameters = [p.clone().requires_grad_() for p in GOLDEN_SBN]
    prior, weight, bias, phi = parameters

    def model(x):
        with pyro.plate("data", len(x)):
            h = pyro.sample("h", dist.Bernoulli(logits=prior).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=h @ weight.T + bias).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("h", dist.Bernoulli(logits=phi).to_event(1))

    return Lattice(model, guide, x.reshape(-1, 3), {"h": configurations(2)}), parameters
