"""Residual nets over maps, at one side or at several, made so that very many of them can stand in a row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlvm.nets.arguments import count, real, widths
from dlvm.nets.conv import Maps, side_of
from dlvm.nets.mlp import as_floats, concatenate

SMALL = 2  # the side of maps up to which a neighbourhood of 3 x 3 is mostly border


class Bottleneck(Maps):
    """Four convolutions, the middle ones of fewer maps.

        out = W_4 * a(W_3 * a(W_2 * a(W_1 * a(h)))),   a = GELU,   W_2, W_3 of 3 x 3 pixels, W_1, W_4 of one

    Maps of at most 2 x 2 pixels are looked at pixel by pixel. The last layer starts at ``last`` times its usual size: a
    row of n blocks h + block(h) starts with a variance that does not grow with n where last = 1 / sqrt(n).

    Args:
        in_features, middle, out_features: number of maps.
        side: of the maps.
        last: the size that W_4 starts with; 0 for none.

    Raises:
        ValueError, TypeError: a number of maps or the side is no integer of at least 1, or ``last`` is negative.

    References:
        Very Deep VAEs Generalize Autoregressive Models, Child, 2021, arXiv:2011.10650.

    Example:
        >>> Bottleneck(8, 4, 6, side=7)(torch.zeros(5, 8, 7, 7)).shape
        torch.Size([5, 6, 7, 7])
    """

    def __init__(self, in_features: int, middle: int, out_features: int, side: int, last: float = 1.0):
        count(in_features=in_features, middle=middle, out_features=out_features, side=side)
        real(last=last)
        if not 0 <= last < math.inf:
            raise ValueError(f"last must be at least 0 and finite, got {last}; it is the size that a layer starts with")
        kernel = 3 if side > SMALL else 1
        shapes = [
            (in_features, middle, 1),
            (middle, middle, kernel),
            (middle, middle, kernel),
            (middle, out_features, 1),
        ]
        convolutions = [nn.Conv2d(a, b, kernel_size=k, padding=k // 2) for a, b, k in shapes]
        super().__init__(*(layer for each in convolutions for layer in (nn.GELU(), each)))
        start_at(convolutions[-1], last)


class Pyramid(nn.Module):
    """Images -> maps of several sides, each made from those of the side above it.

        h_1 = W * image,  h_k = h_k + block(h_k) so many times,  h_(k+1) = means of squares of h_k

    Args:
        x_dim: pixels of an image and channels, rows of the image one after the other, channel by channel.
        sides: of the maps, falling; each divides the one before it, and the first the image's.
        width: number of maps of each side.
        depth: blocks at each side.
        middle: maps inside a block; half the width unless told.
        channels: of the image.

    Raises:
        ValueError, TypeError: the image is no square, sides do not divide one another, or a number is no integer of at
            least 1; or a datum has another width.

    References:
        Very Deep VAEs Generalize Autoregressive Models, Child, 2021, arXiv:2011.10650.

    Example:
        >>> {side: tuple(maps.shape) for side, maps in Pyramid(64, (4, 1), width=6)(torch.zeros(5, 64)).items()}
        {4: (5, 6, 4, 4), 1: (5, 6, 1, 1)}
    """

    def __init__(
        self,
        x_dim: int,
        sides: Sequence[int],
        width: int,
        depth: int = 1,
        middle: int | None = None,
        channels: int = 1,
    ):
        super().__init__()
        self.shape = square_shape(x_dim, channels)
        count(width=width, depth=depth)
        middle = max(1, width // 2) if middle is None else middle
        count(middle=middle)
        self.sides = tuple(falling(sides, self.shape[-1], "sides"))
        self.in_features, self.out_features = x_dim, width
        factor = self.shape[-1] // self.sides[0]
        self.first = Maps(nn.Conv2d(channels, width, kernel_size=factor + 2, stride=factor, padding=1))
        last = (depth * len(self.sides)) ** -0.5
        self.levels = nn.ModuleList(
            nn.ModuleList(Bottleneck(width, middle, width, side, last) for _ in range(depth)) for side in self.sides
        )

    def forward(self, *inputs: Tensor) -> dict[int, Tensor]:
        """Images, shape (*batch, x_dim), with levels from 0 to 1 -> {side: maps (*batch, width, side, side)}."""
        x = as_floats(concatenate(inputs, self.in_features), next(self.first.parameters()))
        maps, found = self.first((2 * x - 1).unflatten(-1, self.shape)), {}
        for side, blocks in zip(self.sides, self.levels, strict=True):
            maps = pooled(maps, side)
            for block in cast(nn.ModuleList, blocks):
                maps = maps + block(maps)
            found[side] = maps
        return found


class Readout(nn.Module):
    """Maps -> numbers of the pixels; each place of the maps holds a square of ``factor`` x ``factor`` of them.

        out = shuffle(W * elu(maps)) + bias,   W of 3 x 3 pixels

    Args:
        width: number of maps.
        x_dim: pixels of the image and channels.
        factor: how many times the side of the maps the image has.
        numbers: of each pixel and channel.
        channels: of the image.
        last: whether the numbers of one pixel stand together, or the first of all come before the second of all.

    Raises:
        ValueError, TypeError: the image is no square of a side that ``factor`` divides, or a number is no integer of at
            least 1.

    Example:
        >>> Readout(6, 64, factor=2, numbers=2)(torch.zeros(5, 6, 4, 4)).shape
        torch.Size([5, 128])
    """

    def __init__(self, width: int, x_dim: int, factor: int, numbers: int = 1, channels: int = 1, last: bool = False):
        super().__init__()
        side = square_shape(x_dim, channels)[-1]
        count(width=width, factor=factor, numbers=numbers)
        if side % factor:
            raise ValueError(f"factor must divide the image's side {side}, got {factor}")
        self.in_features, self.out_features, self.factor = width, numbers * x_dim, factor
        self.numbers, self.last = numbers, last
        maps = numbers * channels * factor**2
        self.net = Maps(nn.ELU(), nn.Conv2d(width, maps, kernel_size=3, padding=1, bias=False))
        self.bias = nn.Parameter(torch.zeros(numbers * x_dim))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps, shape (*batch, width, side, side) -> shape (*batch, numbers * x_dim)."""
        out = F.pixel_shuffle(self.net(maps), self.factor).flatten(-3)
        if self.last:
            out = out.unflatten(-1, (self.numbers, -1)).transpose(-1, -2).flatten(-2)
        return out + self.bias


class PixelMaps(nn.Identity):
    """Maps as the features of a likelihood over images, each pixel of which is told by the maps where it lies.

    A likelihood asks a net of maps for its last layer, see ``last_layer``, and gets a ``Readout``.

    Args:
        width: number of maps.
        side: of the image.
        factor: how many times the side of the maps that is.

    Raises:
        ValueError, TypeError: a number is no integer of at least 1, or ``factor`` does not divide the side.

    Example:
        >>> from dlvm.distributions import DiscretisedLogistic
        >>> likelihood = DiscretisedLogistic(PixelMaps(6, side=8, factor=2), dim=3 * 64)
        >>> likelihood(torch.zeros(5, 6, 4, 4)).event_shape
        torch.Size([192])
    """

    def __init__(self, width: int, side: int, factor: int):
        super().__init__()
        count(width=width, side=side, factor=factor)
        if side % factor:
            raise ValueError(f"factor must divide side={side}, got {factor}")
        self.in_features = self.out_features = width
        self.side, self.factor = side, factor

    def readout(self, dim: int, per: int = 1, last: bool = False) -> Readout:
        """From the maps to ``per`` numbers for each of ``dim``, the pixels or pixels and channels."""
        return Readout(self.out_features, dim, self.factor, per, max(1, dim // self.side**2), last)


@torch.no_grad()
def start_at(layer: nn.Conv2d, share: float) -> None:
    """Lets a layer start at a share of its usual size, with no bias."""
    layer.weight.mul_(share)
    if layer.bias is not None:
        layer.bias.zero_()


def pooled(maps: Tensor, side: int) -> Tensor:
    """Means of squares of pixels: (*batch, width, s, s) -> (*batch, width, side, side); as they are where s = side."""
    factor = maps.shape[-1] // side
    return maps if factor == 1 else maps.unflatten(-1, (-1, factor)).unflatten(-3, (-1, factor)).mean((-3, -1))


def square_shape(x_dim: int, channels: int) -> tuple[int, int, int]:
    """(channels, side, side) of images that arrive as vectors; refuses what are no square images."""
    count(x_dim=x_dim, channels=channels)
    if x_dim % channels:
        raise ValueError(f"x_dim must be a multiple of channels={channels}, got {x_dim}; 3072 is 3 x 32 x 32")
    side = side_of(x_dim // channels, "x_dim" if channels == 1 else "x_dim / channels")
    return channels, side, side


def falling(sides: Sequence[int], whole: int, name: str) -> Sequence[int]:
    """The sides; refuses, by the argument's name, what do not divide one another, and the whole side."""
    widths(**{name: sides})
    if not sides or any(below % above or below == above for below, above in pairwise([*sides])) or whole % sides[0]:
        raise ValueError(
            f"{name} must be sides of maps, each a part of the one before it, the first of the image's side {whole}, "
            f"got {tuple(sides)}; write ({whole}, 1) for example"
        )
    return sides
