"""Supports as one datum sees them: what does not depend on the batch that a distribution was made for."""

from __future__ import annotations

import math
from copy import copy
from typing import Any

from pyro.distributions import MaskedDistribution, SineBivariateVonMises, SineSkewed
from torch import Tensor
from torch.distributions import Distribution, Independent, VonMises, constraints

PERIODIC = VonMises, SineBivariateVonMises, SineSkewed


def latent_support(fn: Any) -> constraints.Constraint:
    """Where a latent site takes its values: the support, or for angles the one period that is drawn from.

    The density of an angle is periodic and its support said to be ``real``, over which it has no integral.

    Example:
        >>> import torch
        >>> latent_support(VonMises(torch.zeros(()), torch.ones(()))).upper_bound == math.pi
        True
    """
    if not is_periodic(fn):
        return fn.support
    period, rank = constraints.interval(-math.pi, math.pi), len(fn.event_shape)
    return constraints.independent(period, rank) if rank else period


def is_periodic(fn: Any) -> bool:
    """Whether a distribution is one of angles, whose density goes on beyond a period."""
    return isinstance(inner(fn), PERIODIC)


def inner(fn: Distribution) -> Distribution:
    """The distribution inside masks and ``to_event``."""
    while isinstance(fn, MaskedDistribution | Independent):
        fn = fn.base_dist
    return fn


def is_real(support: constraints.Constraint) -> bool:
    """Whether a support is all real numbers, of any event shape."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.real


def is_fixed(support: constraints.Constraint, rank: int) -> bool:
    """Whether a support is the same for every datum: no bound has more dimensions than an event, which has ``rank``."""
    parts = vars(support).values()
    inner = all(is_fixed(part, rank) for part in parts if isinstance(part, constraints.Constraint))
    return inner and not any(isinstance(part, Tensor) and part.dim() > rank for part in parts)


def collapsed(support: constraints.Constraint, rank: int) -> constraints.Constraint:
    """The support with bounds that are equal over the batch, as plates make them, reduced to one event's.

    Example:
        >>> import torch
        >>> collapsed(constraints.interval(torch.zeros(5), torch.ones(5)), 0).upper_bound
        tensor(1.)
    """
    changed: dict[str, object] = {}
    for name, part in vars(support).items():
        if isinstance(part, constraints.Constraint):
            changed[name] = collapsed(part, rank)
        elif isinstance(part, Tensor) and part.dim() > rank and part.numel():
            rows = part.reshape(-1, *part.shape[part.dim() - rank :])
            changed[name] = rows[0] if (rows == rows[0]).all() else part
    if all(part is vars(support)[name] for name, part in changed.items()):
        return support  # constraints such as real are known by identity
    single = copy(support)
    vars(single).update(changed)
    return single
