"""What flows whose parameters come from features share: a Gaussian base, and steps scored by the pass that draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.ops.provenance import detach_provenance
from torch import Tensor, nn
from torch.distributions import constraints
from torch.distributions.transforms import Transform
from torch.nn import functional as F

from dlvm.distributions.scale import LIMIT, positive
from dlvm.nets import out_features
from dlvm.nets.arguments import count, made, whole


class OneWay(Transform):
    """A step y -> z that is scored by the pass which made z; subclasses give ``push``, and ``_inverse`` if they can.

    A pass is not gone through again for its own z, unless that would lose a gradient: one made under ``no_grad`` has
    none, and neither has a z that was made a leaf later on. Any other value is inverted.

    Args:
        *parameters: tensors of the step for one context; batches broadcast against that of y.
        cache_size: 1 keeps the last pass, 0 keeps nothing.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, *parameters: Tensor, cache_size: int = 1):
        super().__init__(cache_size=cache_size)
        self.parameters = parameters
        self._scored: tuple[Tensor, Tensor] | None = None
        self._has_graph = False

    def with_cache(self, cache_size: int = 1) -> OneWay:
        return self if cache_size == self._cache_size else type(self)(*self.parameters, cache_size=cache_size)

    def push(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """z and log |det dz/dy|, shapes (*batch, D) and (*batch,)."""
        raise NotImplementedError(f"{type(self).__name__} must define push(y) -> (z, log_det)")

    def _call(self, y: Tensor) -> Tensor:
        z, log_det = self.push(y)
        if self._cache_size:
            self._scored, self._has_graph = (y, log_det), torch.is_grad_enabled()
        return z

    def _inv_call(self, z: Tensor) -> Tensor:
        cached: Any = self._cached_x_y if self._cache_size else (None, None)
        y, made = cached
        bare = detach_provenance(z)  # Pyro follows dependencies by a wrapper around the same tensor
        if y is None or bare is not detach_provenance(made):
            return self._inverse(z)
        differentiable = self._has_graph and not (bare.is_leaf and bare.requires_grad)
        return y if differentiable or not torch.is_grad_enabled() else self._inverse(z)

    def _inverse(self, z: Tensor) -> Tensor:
        raise NotImplementedError(
            f"{type(self).__name__} has no inverse: give it _inverse(z) -> y, or score only the very tensor that "
            "rsample() drew last"
        )

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:  # torch's names for y and z
        if self._scored is not None and self._scored[0] is x:
            return self._scored[1]
        return self.push(x)[1]


class Flow(nn.Module):
    """A diagonal Gaussian followed by ``depth`` steps, all given a context.

        z_0 ~ N(loc(h), scale(h)^2),   z_t = step_t(z_{t-1}; h)
        log q(z_T | h) = log q(z_0 | h) - sum_t log |det dz_t / dz_{t-1}|

    Args:
        net: contexts -> features h, with ``out_features``; h enters every step.
        dim: number of dimensions.
        depth: number of steps.
        make: (width of h, dim, t) -> step t = 0, 1, ..., a module from features to a transform of vectors.

    Raises:
        ValueError: ``depth`` is below 1.

    References:
        Variational Inference with Normalizing Flows, Rezende, Mohamed, 2015, arXiv:1505.05770.
    """

    def __init__(self, net: nn.Module, dim: int, depth: int, make: Callable[[int, int, int], nn.Module]):
        super().__init__()
        count(dim=dim)
        whole(depth=depth)
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}; for no flow use DiagonalNormal")
        width = out_features(net)
        self.net, self.head = net, nn.Linear(width, 2 * dim)
        self.steps = nn.ModuleList(made("make", make, width, dim, t) for t in range(depth))

    def forward(self, *context: Tensor) -> dist.Distribution:
        h = self.net(*context)
        loc, raw = self.head(h).chunk(2, dim=-1)
        base = dist.Normal(loc, positive(raw)).to_event(1)
        return dist.TransformedDistribution(base, [step(h) for step in self.steps])


def above_minus_one(raw: Tensor) -> Tensor:
    """softplus(raw + log(e - 1)) - 1: 0 at 0, increasing, and never below e^-10 - 1; the shape of ``raw``.

    Example:
        >>> above_minus_one(torch.tensor([-1e9, 0.0])).round(decimals=4)
        tensor([-1.,  0.])
    """
    return F.softplus((raw + math.log(math.e - 1)).clamp_min(-LIMIT)) - 1


def shrunk(linear: nn.Linear, rows: int | None = None) -> nn.Linear:
    """The same layer with its first ``rows`` outputs (unless told, all) a hundred times smaller."""
    with torch.no_grad():
        linear.weight[:rows] *= 0.01
        linear.bias[:rows] *= 0.01
    return linear
