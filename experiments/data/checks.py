"""What a matrix of data must satisfy before anything is trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nets.numbers import real, whole


def as_matrix(x: Any, scale: float = 1.0) -> tuple[Tensor, tuple[int, ...] | None]:
    """x / scale as a finite matrix of the default float dtype, and the shape of one image if x holds images.

    Returns: (N, D) tensor, and the trailing shape (H, W) or (C, H, W) of a 3-D or 4-D x, else None.
    Raises: TypeError if x is no array of real numbers; ValueError if it is empty, not finite, not 2-D to 4-D.

    Example:
        >>> x, image_shape = as_matrix(np.full((5, 2, 3), 51, dtype=np.uint8), scale=255)
        >>> x.shape, image_shape, round(x[0, 0].item(), 3)
        (torch.Size([5, 6]), (2, 3), 0.2)
    """
    if isinstance(x, np.ndarray):
        if x.dtype.kind not in "biuf":
            raise TypeError(f"x must hold real numbers, got an array of dtype {x.dtype}: convert it first")
        x = torch.tensor(np.ascontiguousarray(x, x.dtype.newbyteorder("=")))
    if not isinstance(x, Tensor) or x.is_complex():
        what = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x must be a tensor or numpy array of real numbers, got {what}: convert it first")
    if x.ndim not in (2, 3, 4):
        raise ValueError(
            f"x must have 2 dimensions (rows, columns) or 3 to 4 (rows, image), got shape {tuple(x.shape)}: "
            "reshape it, e.g. x[:, None] for one column"
        )
    if x.numel() == 0:
        raise ValueError(f"x must not be empty, got shape {tuple(x.shape)}: give at least one row and column")
    real(scale=scale)
    if not 0 < scale < float("inf"):
        raise ValueError(f"scale must be positive, got {scale}: x is divided by it, 255 for 8-bit images")
    image_shape = tuple(x.shape[1:]) if x.ndim > 2 else None
    matrix = x.detach().flatten(1).to(torch.get_default_dtype())
    check_finite(matrix)
    return (matrix if scale == 1 else matrix / scale), image_shape


def check_finite(x: Tensor) -> None:
    """Raise ValueError if the matrix x holds NaN or inf; the message counts them and names the first."""
    bad = ~torch.isfinite(x)
    if bad.any():
        row, column = bad.nonzero()[0].tolist()
        raise ValueError(
            f"x must be finite, got {int(bad.sum())} NaN or inf, the first at row {row}, column {column} "
            f"(from 0; x has shape {tuple(x.shape)}): drop or fill in those rows first"
        )


def check_unit_interval(x: Tensor, why: str) -> None:
    """Raise ValueError if x leaves [0, 1]: it cannot then be read as probabilities of a 1."""
    low, high = x.min().item(), x.max().item()
    if low < 0 or high > 1:
        raise ValueError(
            f"x must lie in [0, 1] for {why}, got values from {low:g} to {high:g}: "
            "rescale it first, e.g. scale=255 for 8-bit images"
        )


def check_count(name: str, value: int, most: int | None = None) -> int:
    """value, if it is an int of at least 1 (and at most `most`); ValueError that names it otherwise."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < 1 or (most is not None and value > most):
        bounds = "of at least 1" if most is None else f"from 1 to {most}"
        raise ValueError(f"{name} must be an int {bounds}, got {value!r}")
    return value


def check_seed(seed: int) -> int:
    """seed, if it is an int that a generator takes; TypeError or ValueError otherwise."""
    whole(seed=seed)
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed must be an int of 64 bits, got {seed}: take seed % 2**32")
    return seed


def check_device(device: str | torch.device) -> torch.device:
    """device, if torch can use it here; ValueError otherwise."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        said = str(error).split("\n")[0]
        raise ValueError(f"device must be one that torch can use here, got {device!r} ({said}): pass 'cpu'") from error


def check_path(name: str, path: str | Path) -> Path:
    """path with ~ replaced; TypeError if it is no path."""
    if not isinstance(path, str | Path):
        raise TypeError(f"{name} must be a str or a Path, got {type(path).__name__}: pass the path as a str")
    return Path(path).expanduser()


def check_labels(labels: Tensor, rows: int) -> Tensor:
    """labels as int64, if they are one whole number per row; ValueError otherwise."""
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels must be a tensor of integers, got {type(labels).__name__}: use torch.as_tensor")
    if labels.shape != (rows,):
        raise ValueError(f"labels must have shape ({rows},), one per row, got {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels must be whole numbers, got dtype {labels.dtype}: labels.long() if they are")
    return labels.to(torch.int64)
