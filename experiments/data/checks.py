"""What a matrix of data must satisfy before anything is trained on it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlvm.nets.arguments import real


def as_tensor(x: Any, missing: bool = False) -> Tensor:
    """x as a tensor of real numbers in memory; masked entries are NaN if entries may be missing.

    Raises: TypeError if x is no array of real numbers; ValueError if it is masked and may not be.

    Example:
        >>> as_tensor(np.full((2, 3), 51, dtype=np.uint8)).dtype
        torch.uint8
    """
    if isinstance(x, np.ndarray):
        if x.dtype.kind not in "biuf":
            raise TypeError(f"x must hold real numbers, got an array of dtype {x.dtype}: convert it first")
        if np.ma.is_masked(x):
            if not missing:
                raise ValueError(
                    f"x must hold all its numbers, got {np.ma.count_masked(x)} masked ones: fill them in first, or "
                    "allow for them by missing=('nan',)"
                )
            x = np.ma.filled(x.astype(np.float64), np.nan)
        x = from_numpy(x)
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor or numpy array, got {type(x).__name__}: use torch.as_tensor")
    check_dense(x)
    return x.detach()


def check_sizes(x: Tensor) -> None:
    """Raise ValueError if x is empty, or has another number of dimensions than rows, images or sequences."""
    if x.ndim not in (2, 3, 4):
        raise ValueError(
            f"x must have 2 dimensions (rows, columns) or 3 to 4 (rows, image), got shape {tuple(x.shape)}: "
            "reshape it, e.g. x[:, None] for one column"
        )
    if x.numel() == 0:
        raise ValueError(f"x must not be empty, got shape {tuple(x.shape)}: give at least one row and column")


def from_numpy(x: np.ndarray) -> Tensor:
    """A copy of x as a tensor, whatever its byte order, its strides and its precision."""
    dtype = np.dtype(np.float64) if x.dtype.kind == "f" and x.dtype.itemsize > 8 else x.dtype.newbyteorder("=")
    return torch.tensor(np.ascontiguousarray(x, dtype))


def check_dense(x: Tensor) -> None:
    """Raise TypeError if the tensor x is complex, or has no numbers in memory that could be looked at."""
    if x.is_complex():
        raise TypeError(f"x must hold real numbers, got {x.dtype}: convert it first")
    if x.layout is not torch.strided or x.is_meta:
        kind = "meta" if x.is_meta else x.layout
        raise TypeError(f"x must be a dense tensor in memory, got a {kind} one: use x.to_dense(), or fill it first")


def check_scale(scale: float) -> float:
    """scale, if x can be divided by it; TypeError or ValueError otherwise."""
    real(scale=scale)
    try:
        number = float(scale)
    except OverflowError:
        number = math.inf
    if not 0 < number < math.inf:
        raise ValueError(f"scale must be positive, got {scale}: x is divided by it, 255 for 8-bit images")
    return number


def check_finite(x: Tensor, what: str = "x") -> None:
    """Raise ValueError if the matrix x holds NaN or inf; the message counts them and names the first."""
    bad = ~torch.isfinite(x)
    if bad.any():
        row, column = bad.nonzero()[0].tolist()[:2]
        nan = ", or say --missing nan" if x.isnan().any() else ""
        raise ValueError(
            f"{what} must be finite, got {int(bad.sum())} NaN or inf, the first at row {row}, column {column} "
            f"(from 0; x has shape {tuple(x.shape)}): drop or fill in those rows first{nan}"
        )


def check_present(x: Tensor) -> None:
    """Raise ValueError if x, whose missing entries are NaN, holds inf as well, or nothing else."""
    check_finite(x.nan_to_num(nan=0.0, posinf=math.inf, neginf=-math.inf))
    if x.isnan().all():
        raise ValueError(f"x must hold some entries, got all of {tuple(x.shape)} missing: look at --missing")


def check_unit_interval(x: Tensor, why: str) -> None:
    """Raise ValueError if x leaves [0, 1]: it cannot then be read as probabilities of a 1."""
    x = x if not x.isnan().any() else x[~x.isnan()]
    low, high = x.min().item(), x.max().item()
    if low < 0 or high > 1:
        raise ValueError(
            f"x must lie in [0, 1] for {why}, got values from {low:g} to {high:g}: "
            "rescale it first, e.g. scale=255 for 8-bit images"
        )
