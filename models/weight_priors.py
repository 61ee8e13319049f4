"""Priors of weights: how far from zero they are expected, by the layer that they belong to."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from dlvm.nets.arguments import count, real


class FanIn(nn.Module):
    """The prior under which a layer's outputs stay of one size, however wide the layer before it.

        W_ij ~ N(0, scale^2 / fan_in),   b_i ~ N(0, scale^2)

    Args:
        scale: positive.

    Raises:
        ValueError: ``scale`` is not a positive finite number.

    References:
        Bayesian Learning for Neural Networks, Neal, 1996.

    Example:
        >>> FanIn()("layer.weight", torch.zeros(2, 100)).scale
        tensor(0.1000)
    """

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale = positive(scale=scale)

    def extra_repr(self) -> str:
        return f"scale={self.scale}"

    def forward(self, name: str, value: Tensor) -> Any:
        """The prior of the parameter ``name``, of ``value``'s shape: one number's, for each of its numbers."""
        fan_in = math.prod(value.shape[1:]) if value.dim() > 1 else 1
        return dist.Normal(value.new_zeros(()), value.new_tensor(self.scale / fan_in**0.5))


class ARD(nn.Module):
    """Automatic relevance determination: a learned scale for each column of a matrix, which is 0 for one not needed.

        W_ij ~ N(0, scale_j^2)

    Maximised together with the guide, the bound takes the scale of a column to zero whose data are explained as well
    without it.

    Args:
        columns: of the matrix.
        scale: of all columns at the start.

    Raises:
        ValueError: ``columns`` is no count, or ``scale`` not positive; when called, the matrix has other columns.

    References:
        Bayesian PCA, Bishop, 1999.
        Bayesian Interpolation, MacKay, 1992.

    Example:
        >>> ARD(3)("weight", torch.zeros(5, 3)).batch_shape
        torch.Size([5, 3])
    """

    def __init__(self, columns: int, scale: float = 1.0):
        super().__init__()
        count(columns=columns)
        self.log_scale = nn.Parameter(torch.full((int(columns),), math.log(positive(scale=scale))))

    @property
    def scale(self) -> Tensor:
        """Of each column, shape (columns,)."""
        return self.log_scale.exp()

    def forward(self, name: str, value: Tensor) -> Any:
        """The prior of the matrix ``name``, shape (rows, columns)."""
        if value.dim() != 2 or value.shape[1] != len(self.log_scale):
            raise ValueError(
                f"prior: ARD has a scale for each of {len(self.log_scale)} columns, got {name!r} of shape "
                f"{tuple(value.shape)}; lift that matrix alone by only=, or give as many columns"
            )
        return dist.Normal(torch.zeros_like(value), self.scale.expand_as(value))


def positive(**numbers: float) -> float:
    """A standard deviation, refused by its name where it is none."""
    ((name, value),) = numbers.items()
    real(**numbers)
    if isinstance(value, bool) or not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a positive finite standard deviation, got {value!r}; write 1.0")
    return float(value)
