"""The maximum mean discrepancy between two samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from dlvm.inference.distributed.job import sharing
from dlvm.nets.arguments import real


@runtime_checkable
class Kernel(Protocol):
    """Of squared distances, (n, m), between vectors of so many dimensions: how alike they are, (n, m)."""

    def __call__(self, square: Tensor, dim: int) -> Tensor: ...


@dataclass(frozen=True)
class RBF:
    """The Gaussian kernel, exp(-|a - b|^2 / (2 width^2)).

    Args:
        width: in units of the vectors; the square root of their dimensions unless told, about the distance between two
            draws of a standard normal over sqrt(2).

    Raises:
        ValueError: ``width`` is not positive and finite.

    Example:
        >>> import torch
        >>> RBF(1.0)(torch.tensor([[0.0]]), 1)
        tensor([[1.]])
    """

    width: float | None = None

    def __post_init__(self) -> None:
        _positive("width", 1.0 if self.width is None else self.width)

    def __call__(self, square: Tensor, dim: int) -> Tensor:
        return (-square / (2 * (dim if self.width is None else self.width**2))).exp()


@dataclass(frozen=True)
class InverseMultiquadric:
    """A kernel with heavy tails, which far codes feel too: the mean over scales s of c / (c + |a - b|^2), c = 2 dim s.

    Args:
        scales: s; 1 suits draws of a standard normal.

    Raises:
        ValueError: there is no scale, or one is not positive and finite.

    References:
        Wasserstein Auto-Encoders, Tolstikhin, Bousquet, Gelly, Schoelkopf, 2018, arXiv:1711.01558.

    Example:
        >>> import torch
        >>> InverseMultiquadric((0.5,))(torch.tensor([[1.0]]), 1)
        tensor([[0.5000]])
    """

    scales: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

    def __post_init__(self) -> None:
        if not isinstance(self.scales, tuple) or not self.scales:
            raise ValueError(f"scales must be a tuple of positive numbers, got {self.scales!r}; write (1.0,)")
        for scale in self.scales:
            _positive("scales", scale)

    def __call__(self, square: Tensor, dim: int) -> Tensor:
        parts = [2 * dim * s / (2 * dim * s + square) for s in self.scales]
        return sum(parts[1:], parts[0]) / len(parts)


def mmd(one: Tensor, other: Tensor, kernel: Kernel | None = None) -> Tensor:
    """The squared maximum mean discrepancy between two samples, without bias.

        mean_{i != j} k(a_i, a_j) + mean_{i != j} k(b_i, b_j) - 2 mean_{i, j} k(a_i, b_j)

    Its mean is 0 where both samples are of one distribution, and above it otherwise, for kernels as these, which tell
    all distributions apart. The estimate itself may be below 0.

    Returns:
        a 0-d tensor that is differentiable by both samples.

    Args:
        one, other: shapes (n, dim) and (m, dim), at least two rows each.
        kernel: ``RBF()`` unless told.

    Raises:
        TypeError: a sample is no tensor, or ``kernel`` no kernel.
        ValueError: samples have fewer than two rows, or not as many columns.

    References:
        A Kernel Two-Sample Test, Gretton, Borgwardt, Rasch, Schoelkopf, Smola, 2012.

    Example:
        >>> import torch
        >>> mmd(torch.tensor([[0.0], [0.0]]), torch.tensor([[1e9], [1e9]]), RBF(1.0))
        tensor(2.)
    """
    for name, sample in (("one", one), ("other", other)):
        if not isinstance(sample, Tensor):
            raise TypeError(f"{name} must be a tensor of shape (n, dim), got {type(sample).__name__}")
        if sample.dim() != 2 or len(sample) < 2 or not sample.is_floating_point():
            raise ValueError(
                f"{name} must have at least two rows of real numbers, shape (n, dim), got {sample.dtype} of shape "
                f"{tuple(sample.shape)}; flatten what a row holds"
            )
    if one.shape[1] != other.shape[1]:
        raise ValueError(f"one and other must have as many columns, got {one.shape[1]} and {other.shape[1]}")
    kernel = _checked(RBF() if kernel is None else kernel)
    return _within(one, kernel) + _within(other, kernel) - 2 * kernel(_squares(one, other), one.shape[1]).mean()


class MMD(nn.Module):
    """The maximum mean discrepancy between codes of data and of the prior, for ``matched``.

    Args:
        kernel: ``RBF()`` unless told, as in the MMD-VAE; ``InverseMultiquadric()`` in the WAE.

    Raises:
        TypeError: ``kernel`` is no kernel.
    """

    def __init__(self, kernel: Kernel | None = None):
        super().__init__()
        self.kernel = _checked(RBF() if kernel is None else kernel)

    def __repr__(self) -> str:
        return f"MMD({self.kernel!r})"

    def gain(self, codes: Tensor, prior: Tensor, weight: float) -> Tensor:
        """What is to be maximised for each datum, shape (batch,): minus the divergence, so weighted.

        Raises:
            ValueError: a batch of one datum, or a share of one in a job of several processes.
        """
        if sharing() is not None:
            raise ValueError("MMD pairs all data of a batch, which the ranks of a job share out; train in one process")
        if len(codes) < 2:
            raise ValueError("MMD pairs the data of a batch, and this one has a single datum; pass larger batches")
        return (-weight * mmd(codes, prior, self.kernel)).expand(len(codes))


def _within(sample: Tensor, kernel: Kernel) -> Tensor:
    """Mean over pairs of different rows."""
    n = len(sample)
    each = kernel(_squares(sample, sample), sample.shape[1])
    return (each.sum() - each.diagonal().sum()) / (n * (n - 1))


def _squares(a: Tensor, b: Tensor) -> Tensor:
    return (a.unsqueeze(1) - b.unsqueeze(0)).square().sum(-1)


def _checked(kernel: Kernel) -> Kernel:
    if not callable(kernel) or isinstance(kernel, type):
        raise TypeError(f"kernel must be a function of squared distances and dimensions, as RBF(1.0), got {kernel!r}")
    return kernel


def _positive(name: str, value: float) -> None:
    real(**{name: value})
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}; it is in units of what is compared")
