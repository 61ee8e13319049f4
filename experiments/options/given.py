"""Which columns of data are given, and the rest of them to be told: quadrants of images, columns of a table."""

from __future__ import annotations

import torch
from torch import Tensor

from dlvm.experiments.data import Loader


def quadrants(data: Loader, number: int) -> Tensor:
    """Which pixels lie in the quadrants that are given.

    Returns:
        bools, shape (x_dim,): of 1 quadrant the lower left, of 2 the left half, of 3 all but the upper right.

    Args:
        data: images.
        number: of quadrants.

    Raises:
        ValueError: the data are no images of two rows and two columns at least, or the number is none of these.

    Example:
        >>> from dlvm.experiments.data import digits
        >>> quadrants(digits().train, 2).reshape(8, 8)[0].int()
        tensor([1, 1, 1, 1, 0, 0, 0, 0], dtype=torch.int32)
    """
    if number not in (1, 2, 3):
        raise ValueError(f"quadrants must be 1, 2 or 3, got {number}; change --quadrants")
    if data.image_shape is None or min(data.image_shape[-2:]) < 2:
        raise ValueError("given quadrants need images of two rows and columns at least; give columns: --given columns")
    *_, height, width = data.image_shape
    left, low = torch.arange(width) < width // 2, torch.arange(height)[:, None] >= height // 2
    seen = {1: left & low, 2: left & (low | True), 3: left | low}[number]
    return seen.expand(data.image_shape).flatten()


def named_columns(data: Loader, names: tuple[str, ...]) -> Tensor:
    """Which columns bear these names, or have these numbers, from 0, where columns have no names.

    Returns:
        bools, shape (x_dim,).

    Args:
        data: a table.
        names: of the columns that are given.

    Raises:
        ValueError: there is no such column, none is named, or all are.

    Example:
        >>> named_columns(Loader(torch.zeros(2, 3), columns=("age", "height", "weight")), ("height",))
        tensor([False,  True, False])
    """
    known = data.columns or tuple(map(str, range(data.x_dim)))
    if unknown := [name for name in names if name not in known]:
        few = ", ".join(known[:6]) + (", ..." if len(known) > 6 else "")
        raise ValueError(f"given_columns must be columns of the data, {few}, got {unknown[0]}; change --given-columns")
    seen = torch.tensor([name in names for name in known])
    if not 0 < int(seen.sum()) < len(seen):
        raise ValueError(
            f"given_columns must name some columns and leave some, got {int(seen.sum())} of {len(seen)}; change "
            "--given-columns"
        )
    return seen


def part(data: Loader, which: Tensor) -> Loader:
    """Some columns of data, as data of their own, from which a net's start and a likelihood's are taken."""
    columns = None if data.columns is None else tuple(c for c, w in zip(data.columns, which.tolist(), strict=True) if w)
    kind = data.kind
    return Loader(
        data.x[:, which.to(data.device)], data.batch_size, columns=columns, kind=kind, missing=data.has_missing
    )
