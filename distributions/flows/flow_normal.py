"""A flow of steps, each given a context, from standard noise to a scaled and shifted vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from dlvm.distributions.flows.base import OneWay
from dlvm.distributions.scale import positive
from dlvm.nets import out_features
from dlvm.nets.arguments import count, made, whole


class Bijection(Protocol):
    """A map of vectors given a context, which may be one tensor or more, and its inverse."""

    def __call__(self, y: Tensor, *context: Any, **context_by_name: Any) -> tuple[Tensor, Tensor]:
        """z and log |det dz/dy|."""

    def inverse(self, z: Tensor, *context: Any, **context_by_name: Any) -> Tensor:
        """y."""


class Step(OneWay):
    """One step y -> z of a flow by a map of its own, for a fixed context.

    Args:
        bijection: maps (y, *context) to z and log |det dz/dy|, shapes (*batch, dim) and (*batch); its ``inverse`` maps
            (z, *context) to y.
        *context: what the bijection is given; batches broadcast against that of y.
        cache_size: 1 keeps the last pass, 0 keeps nothing.
    """

    def __init__(self, bijection: Bijection, *context: Tensor, cache_size: int = 1):
        super().__init__(*context, cache_size=cache_size)
        self.bijection = bijection

    def with_cache(self, cache_size: int = 1) -> Step:
        return self if cache_size == self._cache_size else Step(self.bijection, *self.parameters, cache_size=cache_size)

    def push(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.bijection(y, *self.parameters)

    def _inverse(self, z: Tensor) -> Tensor:
        return self.bijection.inverse(z, *self.parameters)


class Shift:
    """z = loc + scale y, the last step."""

    def __call__(self, y: Tensor, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        z = loc + scale * y
        return z, scale.log().sum(-1).expand(z.shape[:-1])

    def inverse(self, z: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        return (z - loc) / scale


class FlowNormal(nn.Module):
    """Standard noise through ``depth`` steps, then scaled and shifted, all given a context.

        z = loc(h) + scale(h) * step_T( ... step_1(eps, h) ..., h),   eps ~ N(0, I)

    The steps work on standard noise, so that a step with a bounded range, as a spline has, is where the mass is. Steps
    that start near the identity make the whole start near a plain DiagonalNormal.

    Args:
        net: contexts -> features h, with ``out_features``; h enters every step.
        dim: number of dimensions.
        step: makes a step from (dim, width of h, whether to reverse the dimensions); see ``Coupling``.
        depth: number of steps; every second one reverses the dimensions.

    Raises:
        ValueError: ``depth`` is below 1.

    Example:
        >>> from dlvm.distributions.flows.coupling import Coupling
        >>> q = FlowNormal(nn.Linear(4, 8), 3, Coupling)(torch.zeros(5, 4))
        >>> q.log_prob(q.rsample()).shape
        torch.Size([5])
    """

    def __init__(self, net: nn.Module, dim: int, step: Callable[[int, int, bool], nn.Module], depth: int = 4):
        super().__init__()
        count(dim=dim)
        whole(depth=depth)
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}; for no flow use DiagonalNormal")
        width = out_features(net)
        self.net, self.head = net, nn.Linear(width, 2 * dim)
        self.steps = nn.ModuleList(made("step", step, dim, width, bool(t % 2)) for t in range(depth))

    def forward(self, *context: Tensor) -> dist.Distribution:
        h = self.net(*context)
        loc, raw = self.head(h).chunk(2, dim=-1)
        noise = dist.Normal(torch.zeros_like(loc), torch.ones_like(loc)).to_event(1)
        flow = [Step(cast(Bijection, step), h) for step in self.steps]
        return dist.TransformedDistribution(noise, [*flow, Step(Shift(), loc, positive(raw))])
