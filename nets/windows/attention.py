"""Windows on images, by grids of Gaussian filters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlvm.nets.arguments import count, widths

MOST = 10.0  # of logarithms: a soft limit, so that no step on them ends in zero or infinity


class Window(NamedTuple):
    """A grid of filters for each image, over any leading dimensions.

    Attributes:
        rows: shape (*batch, size, height), the share of each row of pixels in each row of the window.
        columns: shape (*batch, size, width).
        strength: shape (*batch, 1, 1), what a reading is multiplied by, and a writing divided by.
    """

    rows: Tensor
    columns: Tensor
    strength: Tensor


def filters(centre: Tensor, stride: Tensor, scale: Tensor, side: int, size: int) -> Tensor:
    """Gaussian filters along one side of an image, centred on a grid of points.

        F[i, a] = exp(-(a - mu_i)^2 / (2 scale^2)) / sum_b exp(-(b - mu_i)^2 / (2 scale^2)),
        mu_i = centre + (i - (size - 1) / 2) stride,   a = 0..side-1

    Every row sums to 1, a window outside the image included: it then has the pixels at the edge.

    Returns:
        F, shape (*batch, size, side).

    Args:
        centre, stride, scale: shape (*batch, 1), in pixels; the centre counts from the middle of the first pixel.
        side: of the image.
        size: how many filters.

    Example:
        >>> one = torch.ones(1)
        >>> F = filters(1.5 * one, one, 0.01 * one, side=4, size=4)
        >>> torch.equal(F, torch.eye(4))
        True
    """
    points = centre + (torch.arange(size).to(centre) - (size - 1) / 2) * stride
    pixels = torch.arange(side).to(centre)
    away = (pixels - points.unsqueeze(-1)) / scale.unsqueeze(-1)
    return (-0.5 * away.square()).softmax(-1)


class Attention(nn.Module):
    """A window of size x size filters on an image, placed by a linear map of a state.

        (y, x, log s, log d, log strength) = W state + b,
        centre_x = (width - 1) (x + 1) / 2,   stride = d (max(height, width) - 1) / (size - 1),   scale^2 = s

    At W = b = 0 the window spans the whole image, and its strength is 1. Logarithms have soft limits at +-10.

    Args:
        in_features: width of the state.
        sides: (height, width) of the images.
        size: of the window.

    Raises:
        ValueError: a number is below 1, or ``sides`` are not two.
        TypeError: one is no integer.

    References:
        DRAW: A Recurrent Neural Network For Image Generation, Gregor, Danihelka, Graves, Rezende, Wierstra, 2015,
            arXiv:1502.04623.

    Example:
        >>> window = Attention(8, (28, 20), size=5)(torch.zeros(3, 8))
        >>> window.rows.shape, window.columns.shape
        (torch.Size([3, 5, 28]), torch.Size([3, 5, 20]))
    """

    def __init__(self, in_features: int, sides: Sequence[int], size: int):
        super().__init__()
        count(in_features=in_features, size=size)
        widths(sides=sides)
        if len(sides) != 2:
            raise ValueError(f"sides must be (height, width) of the images, got {tuple(sides)}")
        self.in_features, self.sides, self.size = in_features, tuple(sides), size
        self.net = nn.Linear(in_features, 5)

    def forward(self, state: Tensor) -> Window:
        """State, shape (*batch, in_features) -> the window."""
        y, x, *logarithms = self.net(state).split(1, dim=-1)
        variance, stride, strength = ((MOST * (each / MOST).tanh()).exp() for each in logarithms)
        stride = stride * (max(self.sides) - 1) / max(self.size - 1, 1)
        rows, columns = (
            filters((side - 1) * (place + 1) / 2, stride, variance.sqrt(), side, self.size)
            for side, place in zip(self.sides, (y, x), strict=True)
        )
        return Window(rows, columns, strength.unsqueeze(-1))
