"""Convolutions over images that arrive as flat vectors, and over maps with any leading dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from dlvm.nets.arguments import count, is_count, made, module, whole, widths
from dlvm.nets.mlp import as_floats, concatenate


class Maps(nn.Sequential):
    """A chain of torch's two-dimensional layers that leaves all dimensions before the last three alone.

        out = layer_n(... layer_1(maps))

    ``nn.Conv2d`` itself accepts one batch dimension; here particles may stand before the data.

    Args:
        *layers: ``nn.Conv2d``, ``nn.ConvTranspose2d`` and elementwise modules, at least one of them a convolution.

    Raises:
        ValueError: no layer is a convolution; or the maps are of another number of channels.
        TypeError: a layer is no module.

    Example:
        >>> Maps(nn.Conv2d(3, 8, kernel_size=3, padding=1))(torch.zeros(5, 4, 3, 7, 7)).shape
        torch.Size([5, 4, 8, 7, 7])
    """

    def __init__(self, *layers: nn.Module):
        module(**{f"layers[{i}]": layer for i, layer in enumerate(layers)})
        super().__init__(*layers)
        convolutions = [layer for layer in layers if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))]
        if not convolutions:
            raise ValueError(
                f"layers must have a convolution, got {[type(layer).__name__ for layer in layers]}; "
                "write Maps(nn.Conv2d(3, 8, 3, padding=1))"
            )
        self.in_features, self.out_features = convolutions[0].in_channels, convolutions[-1].out_channels

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of shape (*batch, in_features, height, width) -> (*batch, out_features, height', width')."""
        if not isinstance(maps, Tensor):
            raise TypeError(f"maps must be a tensor, got {type(maps).__name__}; pass (*batch, channels, height, width)")
        if maps.dim() < 3 or maps.shape[-3] != self.in_features:
            raise ValueError(
                f"maps must have shape (*batch, {self.in_features}, height, width), got {tuple(maps.shape)}; "
                "channels stand third from the end: unflatten flat images, or make the net for this number"
            )
        batch, event = maps.shape[:-3], maps.shape[-3:]
        out = super().forward(maps.reshape(math.prod(batch), *event))
        return out.reshape(*batch, *out.shape[1:])


class ResidualBlock(Maps):
    """Maps, and what two convolutions would change about them.

        out = h + W_2 * activation(W_1 * activation(h) + b_1) + b_2,   W_i of 3 x 3 pixels

    Args:
        channels: number of maps, in and out.
        activation: makes the nonlinearity.

    References:
        Identity Mappings in Deep Residual Networks, He, Zhang, Ren, Sun, 2016, arXiv:1603.05027.

    Example:
        >>> ResidualBlock(8)(torch.zeros(5, 8, 7, 7)).shape
        torch.Size([5, 8, 7, 7])
    """

    def __init__(self, channels: int, activation: Callable[[], nn.Module] = nn.ELU):
        count(channels=channels)
        before, between = (made("activation", activation) for _ in range(2))
        first, second = (nn.Conv2d(channels, channels, kernel_size=3, padding=1) for _ in range(2))
        super().__init__(before, first, between, second)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of shape (*batch, channels, height, width) -> the same shape."""
        return maps + super().forward(maps)


class Conv(nn.Module):
    """A flat image -> features: convolutions of stride 2, then a linear layer.

        h_0 = image,  h_i = activation(W_i * h_{i-1} + b_i) of half the sides,  W_n vec(h_{n-1}) + b_n

    ``Conv(784, 16, 32, 128)`` takes images of 28 x 28 by way of 16 maps of 14 x 14 and 32 of 7 x 7 to 128 numbers; an
    odd side is halved upwards. As an encoder it stands where an MLP does: a guide applies ``activation`` to the
    features before its own heads.

    Args:
        *sizes: numbers in an image, number of maps after each convolution of 3 x 3 pixels, number of features.
        activation: makes the nonlinearity.
        shape: of an image, (height, width) or (channels, height, width); a square of one channel unless told.
        block: number of maps -> what is applied to the maps after each convolution, as ``ResidualBlock``; none unless
            told.

    Raises:
        ValueError: sizes are fewer than two, below 1, or begin with another number than the shape's, without a shape
            no square; or a datum has another width.

    Example:
        >>> Conv(64, 8, 16, 32)(torch.zeros(5, 64)).shape
        torch.Size([5, 32])
        >>> Conv(3 * 5 * 9, 8, 32, shape=(3, 5, 9), block=ResidualBlock)(torch.zeros(4, 5, 135)).shape
        torch.Size([4, 5, 32])
    """

    def __init__(
        self,
        *sizes: int,
        activation: Callable[[], nn.Module] = nn.ELU,
        shape: Sequence[int] | None = None,
        block: Callable[[int], nn.Module] | None = None,
    ):
        super().__init__()
        check_sizes(sizes, "Conv(784, 16, 32, 128)")
        pixels, *channels, features = sizes
        self.in_features, self.out_features, self.shape = pixels, features, image_shape(pixels, shape, "sizes[0]")
        channels = [self.shape[0], *channels]
        self.layers = nn.ModuleList(
            Maps(nn.Conv2d(a, b, kernel_size=3, stride=2, padding=1)) for a, b in pairwise(channels)
        )
        height, width = halved(self.shape[1:], len(self.layers))
        self.last = nn.Linear(channels[-1] * height * width, features)
        self.activation = made("activation", activation)
        self.blocks = blocks(block, channels[1:])

    @property
    def bias(self) -> Tensor:
        """Bias of the last layer, shape (out_features,)."""
        return self.last.bias

    def forward(self, x: Tensor) -> Tensor:
        """Images, shape (*batch, in_features), integers become floats -> features, shape (*batch, out_features)."""
        h = as_floats(concatenate((x,), self.in_features), self.bias).unflatten(-1, self.shape)
        for layer, block in zip(self.layers, self.blocks, strict=True):
            h = self.activation(block(layer(h)))
        return self.last(h.flatten(-3))


class Deconv(nn.Module):
    """Features -> a flat image: a linear layer, then transposed convolutions of stride 2.

        h_1 = W_1 z + b_1 as maps,  h_{i+1} = W_i * activation(h_i) of twice the sides,  out = vec(h_n) + bias

    ``Deconv(50, 32, 16, 784)`` takes 50 numbers by way of 32 maps of 7 x 7 and 16 of 14 x 14 to 28 x 28 pixels. Where
    a side is odd, the last row or column of what was doubled is left out, so that images of any size can be made.
    Every pixel has a ``bias`` of its own, so that a likelihood can start from the data's mean.

    Args:
        *sizes: number of features, number of maps before each transposed convolution of 4 x 4 pixels, numbers in an
            image.
        activation: makes the nonlinearity.
        shape: of an image, (height, width) or (channels, height, width); a square of one channel unless told.
        block: number of maps -> what is applied to the maps before each transposed convolution, as ``ResidualBlock``;
            none unless told.

    Raises:
        ValueError: sizes are fewer than two, below 1, or end with another number than the shape's, without a shape no
            square; or a datum has another width.

    Example:
        >>> Deconv(2, 16, 8, 64)(torch.zeros(5, 2)).shape
        torch.Size([5, 64])
        >>> Deconv(2, 16, 8, 3 * 5 * 9, shape=(3, 5, 9))(torch.zeros(5, 2)).shape
        torch.Size([5, 135])
    """

    def __init__(
        self,
        *sizes: int,
        activation: Callable[[], nn.Module] = nn.ELU,
        shape: Sequence[int] | None = None,
        block: Callable[[int], nn.Module] | None = None,
    ):
        super().__init__()
        check_sizes(sizes, "Deconv(50, 32, 16, 784)")
        features, *channels, pixels = sizes
        self.in_features, self.out_features = features, pixels
        image = image_shape(pixels, shape, f"sizes[{len(sizes) - 1}]")
        self.sides = [halved(image[1:], times) for times in reversed(range(len(channels)))]
        channels = [*channels, image[0]]
        self.shape = (channels[0], *halved(image[1:], len(self.sides)))
        self.first = nn.Linear(features, math.prod(self.shape))
        self.layers = nn.ModuleList(
            Maps(
                made("activation", activation), nn.ConvTranspose2d(a, b, kernel_size=4, stride=2, padding=1, bias=False)
            )
            for a, b in pairwise(channels)
        )
        self.bias = nn.Parameter(torch.zeros(pixels))
        self.blocks = blocks(block, channels[:-1])

    def forward(self, *inputs: Tensor) -> Tensor:
        """Inputs as an MLP takes them, ``in_features`` numbers in all -> images, shape (*batch, out_features)."""
        h = self.first(as_floats(concatenate(inputs, self.in_features), self.bias)).unflatten(-1, self.shape)
        for (height, width), layer, block in zip(self.sides, self.layers, self.blocks, strict=True):
            h = layer(block(h))[..., :height, :width]
        return h.flatten(-3) + self.bias


def blocks(block: Callable[[int], nn.Module] | None, channels: Sequence[int]) -> nn.ModuleList:
    """One for each number of maps; what leaves maps alone where there is to be none."""
    return nn.ModuleList(nn.Identity() if block is None else made("block", block, n) for n in channels)


def halved(sides: Sequence[int], times: int) -> tuple[int, int]:
    """Height and width after so many convolutions of stride 2."""
    height, width = (math.ceil(side / 2**times) for side in sides)
    return height, width


def image_shape(pixels: int, shape: Sequence[int] | None, name: str) -> tuple[int, int, int]:
    """Channels, height and width of an image of so many numbers, a square of one channel where no shape is given."""
    if shape is None:
        side = side_of(pixels, name, "; for others give shape=(channels, height, width)")
        return 1, side, side
    whole(**{name: pixels})
    widths(shape=shape)
    if len(shape) not in (2, 3) or math.prod(shape) != pixels:
        raise ValueError(
            f"shape must be (height, width) or (channels, height, width) of the {pixels} numbers that {name} says an "
            f"image has, got {tuple(shape)}; write shape=(3, 32, 32) for {name}=3072"
        )
    channels, height, width = shape if len(shape) == 3 else (1, *shape)
    return channels, height, width


def side_of(pixels: int, name: str, remedy: str = "") -> int:
    """Side of a square image of so many pixels; refuses, by the argument's name, a number that is no square."""
    whole(**{name: pixels})
    side = math.isqrt(max(pixels, 0))
    if side < 1 or side**2 != pixels:
        raise ValueError(
            f"{name} must be the number of pixels of a square image, as 784 = 28 x 28, got {pixels}{remedy}"
        )
    return side


def check_sizes(sizes: tuple[int, ...], example: str) -> None:
    """Refuses anything but two or more positive integers."""
    if len(sizes) < 2 or not all(map(is_count, sizes)):
        raise ValueError(f"sizes must be two or more positive integers, got {sizes}; write {example}")
