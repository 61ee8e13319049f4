"""Priors of vectors as priors of maps: the same density over values of another shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import nn
from torch.distributions import Distribution, Independent, Normal
from torch.distributions.transforms import ReshapeTransform

from dlvm.distributions.supports import is_real
from dlvm.nets.arguments import module, widths


class ReshapedPrior(nn.Module):
    """A prior of vectors whose values have another shape, as maps of channels do.

        p(z) = p(flatten(z))

    A diagonal Gaussian stays one, so that the KL of Gaussian guides stays in closed form.

    Args:
        prior: a module without inputs that returns a distribution of real vectors.
        shape: of a value, with as many numbers as the vectors have.

    Raises:
        TypeError: ``prior`` is no module, or ``shape`` no sequence of integers.
        ValueError: the prior is of no real vectors, or ``shape`` has another number of elements.

    Example:
        >>> from dlvm.distributions import FlowPrior
        >>> ReshapedPrior(FlowPrior(8), (2, 2, 2))().sample().shape
        torch.Size([2, 2, 2])
    """

    def __init__(self, prior: nn.Module, shape: Sequence[int]):
        super().__init__()
        module(prior=prior)
        widths(shape=shape)
        vectors: Any = prior()
        if not isinstance(vectors, Distribution) or len(vectors.event_shape) != 1 or not _real(vectors):
            raise ValueError(f"prior must be of real vectors, got {vectors}; take StandardNormal(8), for example")
        if math.prod(shape) != vectors.event_shape.numel():
            raise ValueError(
                f"shape must hold as many numbers as the prior's vectors, {tuple(vectors.event_shape)}, got {shape}; "
                "make the prior for math.prod(shape)"
            )
        self.prior, self.shape = prior, tuple(shape)

    def forward(self) -> dist.Distribution:
        vectors = self.prior()
        if isinstance(vectors, Independent) and isinstance(vectors.base_dist, Normal):
            normal = vectors.base_dist
            return dist.Normal(normal.loc.view(self.shape), normal.scale.view(self.shape)).to_event(len(self.shape))
        return dist.TransformedDistribution(vectors, [ReshapeTransform(vectors.event_shape, torch.Size(self.shape))])


def _real(distribution: Any) -> bool:
    return is_real(distribution.support)
