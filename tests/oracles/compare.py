"""How tests compare: by absolute tolerance, and with torch's own Gaussian as a second route."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from oracles.gaussians import Gaussian


def assert_close(actual: object, expected: object, atol: float = 1e-10) -> None:
    """Fail unless |actual - expected| <= atol everywhere; shapes must broadcast to that of `expected`."""
    actual, expected = _float64(actual), _float64(expected)
    torch.testing.assert_close(actual.expand_as(expected), expected, rtol=0, atol=atol)


def normal(g: Gaussian) -> MultivariateNormal:
    """The same Gaussian in torch's words."""
    return MultivariateNormal(g.loc, g.cov)


def inverse(increasing: Callable[[Tensor], Tensor], value: Tensor, limit: float = 50.0) -> Tensor:
    """Where an elementwise increasing function takes `value`, by bisection on [-limit, limit]."""
    low, high = torch.full_like(value, -limit), torch.full_like(value, limit)
    for _ in range(80):
        middle = (low + high) / 2
        below = increasing(middle) < value
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def _float64(value: object) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).detach()
