"""Convolutions that see earlier pixels alone: the rows above, and what lies to the left in a row."""

from __future__ import annotations

from torch import nn

from dlvm.nets.arguments import count, whole
from dlvm.nets.conv import Maps


class RowsAbove(Maps):
    """A convolution that sees the rows above a pixel, and its own row unless ``strict``.

        out_{ij} = sum_{a = 0..reach, |b| <= reach} W_{ab} h_{i-a, j+b} + bias,   a >= 1 where strict

    Args:
        inputs, outputs: number of maps.
        reach: how many rows up, and columns to either side, it sees; at least 1 where strict.
        strict: whether the pixel's own row is left out, as it must be in a net's first layer.

    Raises:
        ValueError: a number of maps is below 1, or ``reach`` too small.

    References:
        Conditional Image Generation with PixelCNN Decoders, van den Oord et al., 2016, arXiv:1606.05328.

    Example:
        >>> import torch
        >>> RowsAbove(1, 4, reach=2)(torch.zeros(5, 1, 7, 7)).shape
        torch.Size([5, 4, 7, 7])
    """

    def __init__(self, inputs: int, outputs: int, reach: int = 1, strict: bool = False):
        count(inputs=inputs, outputs=outputs)
        check_reach(reach, strict)
        frame = nn.ZeroPad2d((reach, reach, reach, -1 if strict else 0))
        super().__init__(frame, nn.Conv2d(inputs, outputs, (reach if strict else reach + 1, 2 * reach + 1)))
        self.reach = reach


class PixelsLeft(Maps):
    """A convolution that sees the pixels to the left in a row, and the pixel itself unless ``strict``.

        out_{ij} = sum_{b = 0..reach} W_b h_{i, j-b} + bias,   b >= 1 where strict

    Args:
        inputs, outputs: number of maps.
        reach: how many columns to the left it sees; at least 1 where strict.
        strict: whether the pixel itself is left out, as it must be in a net's first layer.

    Raises:
        ValueError: a number of maps is below 1, or ``reach`` too small.

    Example:
        >>> import torch
        >>> PixelsLeft(1, 4, reach=2)(torch.zeros(5, 1, 7, 7)).shape
        torch.Size([5, 4, 7, 7])
    """

    def __init__(self, inputs: int, outputs: int, reach: int = 1, strict: bool = False):
        count(inputs=inputs, outputs=outputs)
        check_reach(reach, strict)
        frame = nn.ZeroPad2d((reach, -1 if strict else 0, 0, 0))
        super().__init__(frame, nn.Conv2d(inputs, outputs, (1, reach if strict else reach + 1)))
        self.reach = reach


def check_reach(reach: int, strict: bool) -> None:
    """Refuses a reach that leaves a convolution nothing to see."""
    whole(reach=reach)
    if reach < int(strict):
        raise ValueError(
            f"reach must be at least {int(strict)}{' where strict' if strict else ''}, got {reach}; it counts the "
            "pixels that are seen in each direction"
        )
