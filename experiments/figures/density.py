"""Densities on a grid: their mass, and the heights that bound their highest-density regions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def axes_of(grid: Tensor | tuple[Tensor, Tensor], n: int) -> tuple[np.ndarray, np.ndarray]:
    """The values along each axis for each datum, twice (n, G).

    Raises:
        ValueError: if ``grid`` is neither (G,) nor (n, G), nor a pair of such.
    """
    pair = grid if isinstance(grid, tuple | list) else (grid, grid)
    values = [torch.as_tensor(axis).detach().to("cpu", torch.float64) for axis in pair]
    if len(values) != 2 or any(
        v.ndim not in (1, 2) or v.shape[-1] < 2 or v.shape[:-1] not in ((), (n,)) for v in values
    ):
        got = ", ".join(str(tuple(v.shape)) for v in values)
        raise ValueError(
            f"grid: expected shape (G,) or ({n}, G), or a pair of such, got {got}; one row of values a datum"
        )
    z1, z2 = (v.expand(n, -1).numpy() for v in values)
    return z1, z2


def masses_of(name: str, log_density: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """The share of the mass on the grid that falls on each point, shape (n, G, G).

    Raises:
        ValueError: if ``log_density`` has another shape, holds NaN, or is zero everywhere for some datum.
    """
    values = torch.as_tensor(log_density).detach().to("cpu", torch.float64)
    if tuple(values.shape) != shape:
        raise ValueError(f"{name}: expected shape {shape}, the data by the grid, got {tuple(values.shape)}; see grid")
    if values.isnan().any() or not values.flatten(1).amax(1).isfinite().all():
        raise ValueError(f"{name}: expected log densities, some finite for each datum, got NaN or none; widen the grid")
    return values.flatten(1).softmax(1).reshape(shape).numpy()


def levels(density: np.ndarray, masses: Sequence[float]) -> list[float]:
    """The heights above which a density on a grid holds each share of its mass.

    Args:
        density: masses or densities on an equally spaced grid, any shape.
        masses: shares in (0, 1), from large to small.

    Returns:
        One height per share; the set of points at least as high is the smallest that holds the share.
    """
    ranked = np.sort(density, axis=None)[::-1]
    held = np.cumsum(ranked) / ranked.sum()
    return [float(ranked[min(np.searchsorted(held, mass), ranked.size - 1)]) for mass in masses]
