"""Small pictures on large ones: where one lies, what is seen of it there, and how it is put there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def placed(picture: Tensor, where: Tensor, sides: Sequence[int]) -> Tensor:
    """An empty image with a small picture on it, interpolated bilinearly.

        image[a, b] = sum_ij k(u_a - i) k(v_b - j) picture[i, j],   k(u) = max(0, 1 - |u|),
        u_a = (a - (height - 1) (1 + y) / 2) / step + (size - 1) / 2,   step = exp(log extent) max(height, width) / size

    Returns:
        shape (*batch, height, width).

    Args:
        picture: shape (*batch, size, size).
        where: shape (*batch, 3): the logarithm of the share of the longer side that it takes, and its centre (y, x),
            from -1 to 1 between the middles of the first and the last pixel; what lies outside is not seen.
        sides: (height, width).

    References:
        Spatial Transformer Networks, Jaderberg, Simonyan, Zisserman, Kavukcuoglu, 2015, arXiv:1506.02025, for a window
            that is moved and scaled.

    Example:
        >>> placed(torch.ones(2, 2), torch.tensor([-0.6931, 0.0, 0.0]), (4, 4)).round()
        tensor([[0., 0., 0., 0.],
                [0., 1., 1., 0.],
                [0., 1., 1., 0.],
                [0., 0., 0., 0.]])
    """
    size = picture.shape[-1]
    rows, columns = (
        _shares((torch.arange(side).to(where) - centre) / step + (size - 1) / 2, size)
        for side, (centre, step) in zip(sides, _places(where, sides, size), strict=True)
    )
    return rows @ picture @ columns.mT


def seen(image: Tensor, where: Tensor, size: int) -> Tensor:
    """What lies at a place of an image, as a small picture: the points of its grid, interpolated bilinearly.

    Returns:
        shape (*batch, size, size).

    Args:
        image: shape (*batch, height, width).
        where: shape (*batch, 3), as for ``placed``.
        size: of the picture.

    Example:
        >>> image = torch.arange(16.0).reshape(4, 4)
        >>> seen(image, torch.zeros(3), 4).equal(image)
        True
    """
    sides = image.shape[-2:]
    grid = torch.arange(size).to(where) - (size - 1) / 2
    rows, columns = (
        _shares(centre + grid * step, side)
        for side, (centre, step) in zip(sides, _places(where, sides, size), strict=True)
    )
    return rows @ image @ columns.mT


def _places(where: Tensor, sides: Sequence[int], size: int) -> list[tuple[Tensor, Tensor]]:
    """The centre and the step of the grid along either side, in pixels, shape (*batch, 1)."""
    extent, *centres = where.split(1, dim=-1)
    step = extent.exp() * (max(sides) / size)
    return [((side - 1) * (1 + centre) / 2, step) for side, centre in zip(sides, centres, strict=True)]


def _shares(points: Tensor, knots: int) -> Tensor:
    """How much each of the numbers 0..knots-1 has of a point between them, shape (*batch, points, knots)."""
    return (1 - (points.unsqueeze(-1) - torch.arange(knots).to(points)).abs()).clamp_min(0)
