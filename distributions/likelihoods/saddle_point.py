"""The two small parts that a count's log-probability is made of, where log Gamma would cancel to nothing.

In single precision x log rate - rate - log x! is a difference of numbers of the size of x log x: at a million counts
its error is a nat. Written by these parts, no two of them are large and cancel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG_TWO_PI = math.log(2 * math.pi)
FAR = 16.0  # where Stirling's series takes over: below, log Gamma is no larger than 31


def stirling_error(x: Tensor) -> Tensor:
    """log Gamma(x + 1) - [(x + 1/2) log x - x + log(2 pi) / 2], elementwise for x > 0; about 1 / (12 x).

    References:
        Fast and Accurate Computation of Binomial Probabilities, Loader, 2000.

    Example:
        >>> stirling_error(torch.tensor([1.0, 1e6]))
        tensor([8.1061e-02, 8.3333e-08])
    """
    far, near = x.clamp_min(FAR), x.clamp_max(FAR)
    y = far.square().reciprocal()
    series = (1 / 12 - y * (1 / 360 - y * (1 / 1260 - y * (1 / 1680 - y / 1188)))) / far
    return torch.where(x > FAR, series, torch.lgamma(near + 1) - (near + 0.5) * near.log() + near - 0.5 * LOG_TWO_PI)


def deviance(x: Tensor, mean: Tensor, difference: Tensor) -> Tensor:
    """x log(x / mean) + mean - x, elementwise for x > 0, which is never negative and 0 where x is the mean.

    Where both are close, it is taken from the series in v = (x - mean) / (x + mean),

        (x - mean) v + 2 x v (v^2 / 3 + v^4 / 5 + ...)

    Args:
        x: positive.
        mean: positive.
        difference: x - mean, as precisely as the caller has it.

    References:
        Fast and Accurate Computation of Binomial Probabilities, Loader, 2000.

    Example:
        >>> deviance(torch.tensor(1e6), torch.tensor(1e6 - 64), torch.tensor(64.0))
        tensor(0.0020)
    """
    v = difference / (x + mean)
    close = v.abs() < 0.1
    small = torch.where(close, v, 0)
    y = small.square()
    series = torch.zeros_like(y)
    for k in range(8, 0, -1):
        series = y * (1 / (2 * k + 1) + series)
    near = small * (torch.where(close, difference, 0) + 2 * x * series)
    far = x * torch.where(close, 1, x / mean).log() - difference
    return torch.where(close, near, far)
