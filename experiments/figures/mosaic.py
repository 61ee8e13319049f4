"""Vectors laid out as one picture of many small images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

GAP = 0.12  # white space between images, as a fraction of their side


def vectors(name: str, values: Tensor, image_shape: Sequence[int] | None) -> Tensor:
    """``values`` on the CPU as (n, x_dim) in float32, once they are known to fit ``image_shape``.

    Raises:
        ValueError: if there are no rows, if ``values`` are not finite, or if they do not fit ``image_shape``.
    """
    values = torch.as_tensor(values).detach().to("cpu", torch.float32)
    if values.ndim != 2 or not values.numel():
        raise ValueError(
            f"{name}: expected shape (n, x_dim) with n >= 1, got {tuple(values.shape)}; flatten each datum"
        )
    if not values.isfinite().all():
        raise ValueError(f"{name}: expected finite values, got {int((~values.isfinite()).sum())} others; check the run")
    if image_shape is None:
        return values
    if len(image_shape) not in (2, 3) or (len(image_shape) == 3 and image_shape[0] not in (1, 3)):
        expected = "(height, width) or (channels, height, width) with 1 or 3 channels"
        raise ValueError(f"image_shape: expected {expected}, got {tuple(image_shape)}; pass None for other data")
    if math.prod(image_shape) != values.shape[1]:
        expected = f"{math.prod(image_shape)} values a datum for image_shape {tuple(image_shape)}"
        raise ValueError(f"{name}: expected {expected}, got {values.shape[1]}; change one of them")
    return values


def limits(groups: Iterable[Tensor]) -> tuple[float, float]:
    """The values shown as black and white: 0 and 1, unless some value lies outside."""
    groups = list(groups)
    return min(0.0, *(float(g.min()) for g in groups)), max(1.0, *(float(g.max()) for g in groups))


def mosaic(values: Tensor, image_shape: Sequence[int], columns: int, low: float, high: float) -> Tensor:
    """Images in rows of ``columns``, scaled to [0, 1], with white gaps between them.

    Args:
        values: the images, shape (n, x_dim).
        image_shape: ``(height, width)`` or ``(channels, height, width)``.
        columns: images in a row.
        low: the value of black.
        high: the value of white.

    Returns:
        The picture, shape (rows, columns, 3).
    """
    height, width = image_shape[-2:]
    tiles = ((values - low) / (high - low)).reshape(len(values), -1, height, width).expand(-1, 3, -1, -1)
    # Each pixel becomes a block, so that the gap can be thinner than a pixel of a small image.
    block = max(1, math.ceil(64 / height))
    gap = max(1, round(GAP * height * block / 2))
    tiles = tiles.repeat_interleave(block, -1).repeat_interleave(block, -2)
    rows = math.ceil(len(tiles) / columns)
    tiles = torch.cat([tiles, tiles.new_ones(rows * columns - len(tiles), *tiles.shape[1:])])
    tiles = torch.nn.functional.pad(tiles, (gap, gap, gap, gap), value=1.0)
    tiles = tiles.reshape(rows, columns, *tiles.shape[1:])  # (rows, columns, 3, height, width)
    return tiles.permute(0, 3, 1, 4, 2).reshape(rows * tiles.shape[3], columns * tiles.shape[4], 3)
