"""Hamiltonian Monte Carlo, one chain per datum and sample, all moved at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Field = Callable[[Tensor], "Point"]


class Point(NamedTuple):
    """Where chains are, with all that the next transition needs to know of it.

    The density is a weighted sum of terms: where the weights alone change, as in annealing, nothing is computed anew.

    Attributes:
        u: shape (num_chains, num_data, dim).
        terms: of the log-density, shape (num_terms, num_chains, num_data), nats.
        slopes: d terms / du, shape (num_terms, num_chains, num_data, dim).
    """

    u: Tensor
    terms: Tensor
    slopes: Tensor

    def log_density(self, weights: Sequence[float]) -> Tensor:
        """sum_i weights_i terms_i, shape (num_chains, num_data), in double precision."""
        return sum(weight * term.double() for weight, term in zip(weights, self.terms, strict=True))

    def slope(self, weights: Sequence[float]) -> Tensor:
        """sum_i weights_i d terms_i / du, shape (num_chains, num_data, dim)."""
        return sum(weight * slope for weight, slope in zip(weights, self.slopes, strict=True))


def at(terms: Callable[[Tensor], Sequence[Tensor]], u: Tensor) -> Point:
    """Computes terms and slopes at u, shape (num_chains, num_data, dim); ``partial(at, terms)`` is a field.

    Args:
        terms: u -> a few tensors of shape (num_chains, num_data), nats; each entry depends on its own row of u alone.
    """
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        found = terms(u)
        slopes = [torch.autograd.grad(term.sum(), u, retain_graph=True, materialize_grads=True)[0] for term in found]
    return Point(u.detach(), torch.stack([term.detach() for term in found]), torch.stack(slopes))


@torch.no_grad()
def leapfrog(
    field: Field, point: Point, velocity: Tensor, weights: Sequence[float], size: Tensor, leaps: int
) -> tuple[Point, Tensor]:
    """Follows Hamilton's equations with unit mass; reversible, and keeps volume.

        v <- v + eps/2 slope(u),   u <- u + eps v,   v <- v + eps/2 slope(u)

    Returns:
        the point reached, and the velocity there; run from these with the velocity negated, it comes back.

    Args:
        field: u -> ``Point`` there.
        point: where it starts.
        weights: the log-density is sum_i weights_i terms_i(u).
        velocity: of the shape of ``point.u``.
        size: eps, shape (num_data,) or (num_chains, num_data).
        leaps: how many such steps; one evaluation of the field each.
    """
    size = size.unsqueeze(-1)
    velocity = velocity + size / 2 * point.slope(weights)
    for leap in range(leaps):
        point = field(point.u + size * velocity)
        velocity = velocity + (size if leap < leaps - 1 else size / 2) * point.slope(weights)
    return point, velocity


@torch.no_grad()
def transition(
    field: Field, point: Point, weights: Sequence[float], size: Tensor, leaps: int = 10
) -> tuple[Point, Tensor]:
    """Moves every chain so that its density stays as it is, in detailed balance.

        v ~ N(0, I);   (u', v') = leapfrog(u, v);   u <- u' with probability min(1, exp(H(u, v) - H(u', v')))

    A trajectory that leaves the finite numbers is rejected.

    Returns:
        the point after it, and the probability with which each chain's proposal is accepted, shape
        (num_chains, num_data).

    Args:
        field: u -> ``Point`` there.
        point: where it starts.
        weights: the log-density is sum_i weights_i terms_i(u).
        size: eps, shape (num_data,) or (num_chains, num_data); it must not depend on the chains' positions.
        leaps: leapfrog steps per proposal.

    References:
        MCMC using Hamiltonian dynamics, Neal, 2011, arXiv:1206.1901.

    Example:
        >>> from functools import partial
        >>> normal = partial(at, lambda u: [-0.5 * u.square().sum(-1)])
        >>> moved, acceptance = transition(normal, normal(torch.zeros(4, 3, 2)), [1.0], torch.full((3,), 0.1))
        >>> moved.u.shape, bool((acceptance > 0.95).all())
        (torch.Size([4, 3, 2]), True)
    """
    velocity = torch.randn_like(point.u)
    proposal, arrived = leapfrog(field, point, velocity, weights, size, leaps)
    before = point.log_density(weights) - kinetic_energy(velocity)
    after = proposal.log_density(weights) - kinetic_energy(arrived)
    sound = after.isfinite() & proposal.slopes.isfinite().all(-1).all(0)
    acceptance = torch.where(sound, (after - before).clamp(max=0).exp(), 0.0)
    taken = torch.rand_like(acceptance) < acceptance
    row = taken.unsqueeze(-1)
    chosen = Point(
        torch.where(row, proposal.u, point.u),
        torch.where(taken, proposal.terms, point.terms),
        torch.where(row, proposal.slopes, point.slopes),
    )
    return chosen, acceptance


def kinetic_energy(velocity: Tensor) -> Tensor:
    """|v|^2 / 2, shape (num_chains, num_data), in double precision."""
    return velocity.double().square().sum(-1) / 2
