"""What the rate KL(q(z | x) || p(z)) is to be: at least so much (free bits), or just so much (capacity)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributions import Independent, kl_divergence

from dlvm.inference.distributed.job import joint_sum
from dlvm.inference.estimators.pathwise import Total
from dlvm.inference.objectives.aided import Aided, refuse_aided, refuse_auxiliary
from dlvm.inference.objectives.elbo import ELBO
from dlvm.inference.objectives.objective import Objective
from dlvm.inference.objectives.schedules import Schedule, as_schedule
from dlvm.inference.objectives.tempered import check_sites
from dlvm.inference.particles.particles import Particles
from dlvm.nets.arguments import real

Number = TypeVar("Number", int, float)


def free_bits(objective: ELBO, nats: float | Mapping[str, float], groups: int | Mapping[str, int] = 1) -> Aided:
    """Lets each latent site, or group of its dimensions, have so many nats for free while training.

        E log p(x | z) - sum_j max(lambda, E_batch KL_j)

    The KL of a group is averaged over the batch; where it is below lambda, it is not pushed down. What is reported
    stays the ELBO. With ``nats=0`` the training is that of the ELBO itself.

    Returns:
        an objective.

    Args:
        objective: an ``ELBO`` with the total derivative; with ``analytic_kl``, groups have analytic KLs as well.
        nats: lambda, per group; a number for all latent sites, or {site: number} for some of them.
        groups: into how many equal groups a site's dimensions are cut: 1 takes the site as a whole; a number for all
            sites, or {site: number}.

    Raises:
        TypeError: ``objective`` is none of ours.
        ValueError: another bound or estimator, a negative ``nats``; when used, an unknown site, one that has no
            densities per dimension, or whose dimensions do not fall into so many groups.

    References:
        Improved Variational Inference with Inverse Autoregressive Flow, Kingma et al., 2016, arXiv:1606.04934.
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 2.8.1, arXiv:1906.02691.
    """
    return Aided(objective, FreeBits(nats, groups))


def capacity(objective: ELBO, nats: float | Schedule, gamma: float = 100.0) -> Aided:
    """Holds the rate at a given number of nats while training (C-annealing, if that number rises).

        E log p(x | z) - gamma |E_batch KL(q(z | x) || p(z)) - C|

    What is reported stays the ELBO.

    Returns:
        an objective.

    Args:
        objective: an ``ELBO`` with the total derivative.
        nats: C, per datum; a number or a schedule, ``linear(0.0, 25.0, steps=10_000)`` for example.
        gamma: how hard the rate is held.

    Raises:
        TypeError: ``objective`` is none of ours.
        ValueError: another bound or estimator; a negative ``nats`` or ``gamma``.

    References:
        Understanding Disentangling in beta-VAE, Burgess et al., 2018, arXiv:1804.03599.
    """
    return Aided(objective, Capacity(nats, gamma))


class FreeBits(nn.Module):
    """The aid of ``free_bits``."""

    name, speaks = "free_bits", True

    def __init__(self, nats: float | Mapping[str, float], groups: int | Mapping[str, int]):
        super().__init__()
        for name, value in (("nats", nats), ("groups", groups)):
            check_sites(value, name)
            numbers = value.values() if isinstance(value, Mapping) else [value]
            least, kind = (0, Real) if name == "nats" else (1, Integral)
            if not all(isinstance(number, kind) and least <= number < math.inf for number in numbers):
                raise ValueError(f"{name} must be finite and at least {least}, got {value!r}")
        self.nats, self.groups = nats, groups

    def __repr__(self) -> str:
        return f"nats={self.nats!r}, groups={self.groups!r}"

    def accept(self, objective: Objective) -> None:
        require_elbo(objective, self.name)

    def forward(self, objective: ELBO, particles: Particles, value: Tensor | None) -> Tensor:
        names = list(particles.terms)
        free, cut = _by_site(self.nats, names, 0.0), _by_site(self.groups, names, 1)
        if not any(free.values()):
            return objective.surrogate(particles, value)
        refuse_auxiliary(particles, self.name)
        total = particles.total(particles.log_likelihood.mean(0))
        for name, term in particles.terms.items():
            if not free[name]:
                total = total - particles.total(term.ratio.mean(0))
                continue
            ratio = term.ratio if cut[name] == 1 else _grouped(particles, name, cut[name])
            mean = batch_mean(particles, ratio.mean(-2))
            total = total - joint_sum(data_count(particles)) * mean.clamp(min=free[name]).sum()
        return total


class Capacity(nn.Module):
    """The aid of ``capacity``."""

    name, speaks = "capacity", True

    def __init__(self, nats: float | Schedule, gamma: float):
        super().__init__()
        real(gamma=gamma)
        if not 0 <= gamma < math.inf:
            raise ValueError(f"gamma must be at least 0 and finite, got {gamma}; it is how hard the rate is held")
        self.nats, self.gamma = as_schedule(nats, "nats"), gamma

    def __repr__(self) -> str:
        return f"nats={self.nats!r}, gamma={self.gamma:g}"

    def accept(self, objective: Objective) -> None:
        require_elbo(objective, self.name)

    def forward(self, objective: ELBO, particles: Particles, value: Tensor | None) -> Tensor:
        rate = batch_mean(particles, particles.log_ratio.mean(0))
        held = self.gamma * (rate - self.nats().to(rate)).abs()
        return particles.total(particles.log_likelihood.mean(0)) - joint_sum(data_count(particles)) * held


def require_elbo(objective: Objective, name: str) -> None:
    """Raises ValueError where an objective is no ELBO that is differentiated as it stands."""
    refuse_aided(objective, name)
    if not isinstance(objective, ELBO) or type(objective.estimator) is not Total:
        raise ValueError(
            f"{name} changes the KL term, which only the ELBO has, under the total derivative; got {objective!r}: "
            "write ELBO(num_particles) or ELBO(num_particles, analytic_kl=True)"
        )


def data_count(particles: Particles) -> Tensor | float:
    """How many data the batch stands for: the sum of their scales."""
    scale = particles.scale
    return scale.sum() if isinstance(scale, Tensor) and scale.dim() else scale * particles.layout.batch


def batch_mean(particles: Particles, values: Tensor) -> Tensor:
    """Mean over data, (*, batch) -> (*), each counted by its scale; over those of all ranks of a job."""
    return joint_sum((values * particles.scale).sum(-1)) / joint_sum(data_count(particles))


def _by_site(value: Number | Mapping[str, Number], names: list[str], rest: Number) -> dict[str, Number]:
    if not isinstance(value, Mapping):
        return dict.fromkeys(names, value)
    if unknown := set(value) - set(names):
        raise ValueError(f"free_bits names {sorted(unknown)}, but the latent sites are {names}")
    return {name: value.get(name, rest) for name in names}


def _grouped(particles: Particles, name: str, groups: int) -> Tensor:
    """log q / p, or the analytic KL, of groups of a site's dimensions: shape (groups, num_particles, batch)."""
    site = next(s for s in particles.drawn if s["name"] == name)
    q: Any = site["fn"]
    p: Any = next((s["fn"] for s in particles.joint if s["name"] == name), None)
    rank = q.event_dim
    if not all(_factorised(fn, rank) for fn in (q, p)):
        raise ValueError(
            f"latent site {name!r} has no densities per dimension in model and guide alike "
            f"({type(q).__name__}, {type(p).__name__}); use groups=1, or a guide with independent dimensions"
        )
    if q.event_shape.numel() % groups:
        raise ValueError(f"the {q.event_shape.numel()} dimensions of {name!r} do not fall into {groups} equal groups")
    if particles.terms[name].kl is None:
        each = q.base_dist.log_prob(site["value"]) - p.base_dist.log_prob(site["value"])
    else:
        each = kl_divergence(q.base_dist, p.base_dist)
    parts = each.flatten(-rank).unflatten(-1, (groups, -1)).sum(-1)
    return torch.stack([particles.layout.reduce(part, site) for part in parts.unbind(-1)])


def _factorised(fn: torch.distributions.Distribution | None, rank: int) -> bool:
    return isinstance(fn, Independent) and rank > 0 and fn.reinterpreted_batch_ndims == rank
