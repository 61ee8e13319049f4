"""Batch normalisation over rows of data, whatever stands before them."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from dlvm.nets.arguments import count, real


class BatchNorm(_BatchNorm):
    """Features brought to mean 0 and variance 1 over the rows of a batch, then scaled and shifted.

        out = gain (h - mean) / sqrt(variance + eps) + shift

    In training, mean and variance are those of the rows at hand; whatever dimensions stand before the rows, as
    particles do, are each normalised by themselves, as if they came one after the other. In evaluation they are the
    running averages, over steps, of what training saw: a datum's features then do not depend on other data.

    Args:
        features: width of the features.
        momentum: share of a step in the running averages.
        eps: added to the variance.

    Raises:
        ValueError: ``features`` is below 1, ``momentum`` not in (0, 1], or ``eps`` not positive; when called, features
            have another width, or training has a single row.
        TypeError: one is no number; or the features are no tensor.

    References:
        Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift, Ioffe, Szegedy,
            2015, arXiv:1502.03167.

    Example:
        >>> norm = BatchNorm(3)
        >>> norm(torch.randn(7, 50, 3)).var(1, correction=0).allclose(torch.ones(7, 3), atol=1e-3)
        True
        >>> norm.eval()(torch.zeros(3)).shape
        torch.Size([3])
    """

    behind = 0  # dimensions of an event behind its features
    shape = "(*batch, rows, {})"

    def __init__(self, features: int, momentum: float = 0.1, eps: float = 1e-5):
        count(features=features)
        real(momentum=momentum, eps=eps)
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum must be above 0 and at most 1, got {momentum}; pass 0.1")
        if not 0 < eps < float("inf"):
            raise ValueError(f"eps must be positive and finite, got {eps}; pass 1e-5")
        super().__init__(features, eps=eps, momentum=momentum)
        self.in_features = self.out_features = features

    def forward(self, value: Tensor) -> Tensor:
        """Features, shape (*batch, rows, features), in evaluation without rows as well -> the same shape."""
        self._check(value)
        kept = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
        mean, variance = self._statistics(value) if self.training else kept
        scale = self.weight * (variance + self.eps).rsqrt()
        return value * self._behind(scale) + self._behind(self.bias - mean * scale)

    def _statistics(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Of the rows, shapes (*batch, 1, features); they enter the running averages."""
        places = tuple(range(-self.behind, 0))
        dims = (-2 - self.behind, *places)
        num = math.prod(value.shape[dim] for dim in dims)
        if num < 2:
            raise ValueError(
                f"value of shape {tuple(value.shape)} has a single row, and batch normalisation trains on two and "
                "more; leave the last batch out (drop_last=True of a DataLoader), or call eval()"
            )
        variance, mean = torch.var_mean(value, dims, correction=0, keepdim=True)
        for _ in places:
            variance, mean = variance.squeeze(-1), mean.squeeze(-1)
        with torch.no_grad():
            for running, now in (self.running_mean, mean), (self.running_var, variance * (num / (num - 1))):
                cast(Tensor, running).lerp_(now.detach().flatten(0, -2).mean(0), cast(float, self.momentum))
            cast(Tensor, self.num_batches_tracked).add_(1)
        return mean, variance

    def _behind(self, value: Tensor) -> Tensor:
        return value[(..., *(None,) * self.behind)]

    def _check(self, value: Tensor) -> None:
        least, shape = 1 + self.behind + self.training, self.shape.format(self.num_features)
        if not isinstance(value, Tensor):
            raise TypeError(f"value must be a tensor, got {type(value).__name__}; pass {shape}")
        if value.dim() < least or value.shape[-1 - self.behind] != self.num_features:
            raise ValueError(
                f"value must have shape {shape}, got {tuple(value.shape)}; make the layer for this number of features"
            )


class BatchNorm2d(BatchNorm):
    """Maps brought to mean 0 and variance 1 over the rows of a batch and all places; see ``BatchNorm``.

        out = gain (h - mean) / sqrt(variance + eps) + shift,   one number of each per map

    Args:
        features: number of maps.
        momentum, eps: as for ``BatchNorm``.

    Example:
        >>> BatchNorm2d(3)(torch.randn(2, 5, 3, 7, 7)).shape
        torch.Size([2, 5, 3, 7, 7])
    """

    behind = 2
    shape = "(*batch, rows, {}, height, width)"
