"""Convolutions over square images that arrive as flat vectors, and over maps with any leading dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from dlvm.nets.arguments import count, is_count, made, module, whole
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
    """A flat square image -> features: convolutions of stride 2, then a linear layer.

        h_0 = image,  h_i = activation(W_i * h_{i-1} + b_i) of half the side,  W_n vec(h_{n-1}) + b_n

    ``Conv(784, 16, 32, 128)`` takes images of 28 x 28 by way of 16 maps of 14 x 14 and 32 of 7 x 7 to 128 numbers. As
    an encoder it stands where an MLP does: a guide applies ``activation`` to the features before its own heads.

    Args:
        *sizes: pixels of an image, number of maps after each convolution of 3 x 3 pixels, number of features.
        activation: makes the nonlinearity.

    Raises:
        ValueError: sizes are fewer than two, below 1, or begin with no square; or a datum has another width.

    Example:
        >>> Conv(64, 8, 16, 32)(torch.zeros(5, 64)).shape
        torch.Size([5, 32])
    """

    def __init__(self, *sizes: int, activation: Callable[[], nn.Module] = nn.ELU):
        super().__init__()
        check_sizes(sizes, "Conv(784, 16, 32, 128)")
        pixels, *channels, features = sizes
        self.in_features, self.out_features, self.side = pixels, features, side_of(pixels, "sizes[0]")
        channels = [1, *channels]
        self.layers = nn.ModuleList(
            Maps(nn.Conv2d(a, b, kernel_size=3, stride=2, padding=1)) for a, b in pairwise(channels)
        )
        side = math.ceil(self.side / 2 ** len(self.layers))
        self.last = nn.Linear(channels[-1] * side**2, features)
        self.activation = made("activation", activation)

    @property
    def bias(self) -> Tensor:
        """Bias of the last layer, shape (out_features,)."""
        return self.last.bias

    def forward(self, x: Tensor) -> Tensor:
        """Images, shape (*batch, in_features), integers become floats -> features, shape (*batch, out_features)."""
        h = as_floats(concatenate((x,), self.in_features), self.bias).unflatten(-1, (1, self.side, self.side))
        for layer in self.layers:
            h = self.activation(layer(h))
        return self.last(h.flatten(-3))


class Deconv(nn.Module):
    """Features -> a flat square image: a linear layer, then transposed convolutions of stride 2.

        h_1 = W_1 z + b_1 as maps,  h_{i+1} = W_i * activation(h_i) of twice the side,  out = vec(h_n) + bias

    ``Deconv(50, 32, 16, 784)`` takes 50 numbers by way of 32 maps of 7 x 7 and 16 of 14 x 14 to 28 x 28 pixels. Every
    pixel has a ``bias`` of its own, so that a likelihood can start from the data's mean.

    Args:
        *sizes: number of features, number of maps before each transposed convolution of 4 x 4 pixels, pixels.
        activation: makes the nonlinearity.

    Raises:
        ValueError: sizes are fewer than two, below 1, or end with no square of a side that can be halved so many
            times; or a datum has another width.

    Example:
        >>> Deconv(2, 16, 8, 64)(torch.zeros(5, 2)).shape
        torch.Size([5, 64])
    """

    def __init__(self, *sizes: int, activation: Callable[[], nn.Module] = nn.ELU):
        super().__init__()
        check_sizes(sizes, "Deconv(50, 32, 16, 784)")
        features, *channels, pixels = sizes
        self.in_features, self.out_features = features, pixels
        side, factor = side_of(pixels, f"sizes[{len(sizes) - 1}]"), 2 ** len(channels)
        if side % factor:
            raise ValueError(
                f"sizes has {len(channels)} numbers of maps, which double the side so many times; a side of {side} is "
                f"no multiple of {factor}: give fewer"
            )
        channels = [*channels, 1]
        self.shape = (channels[0], side // factor, side // factor)
        self.first = nn.Linear(features, math.prod(self.shape))
        self.layers = nn.ModuleList(
            Maps(
                made("activation", activation), nn.ConvTranspose2d(a, b, kernel_size=4, stride=2, padding=1, bias=False)
            )
            for a, b in pairwise(channels)
        )
        self.bias = nn.Parameter(torch.zeros(pixels))

    def forward(self, *inputs: Tensor) -> Tensor:
        """Inputs as an MLP takes them, ``in_features`` numbers in all -> images, shape (*batch, out_features)."""
        h = self.first(as_floats(concatenate(inputs, self.in_features), self.bias)).unflatten(-1, self.shape)
        for layer in self.layers:
            h = layer(h)
        return h.flatten(-3) + self.bias


def side_of(pixels: int, name: str) -> int:
    """Side of a square image of so many pixels; refuses, by the argument's name, a number that is no square."""
    whole(**{name: pixels})
    side = math.isqrt(max(pixels, 0))
    if side < 1 or side**2 != pixels:
        raise ValueError(f"{name} must be the number of pixels of a square image, as 784 = 28 x 28, got {pixels}")
    return side


def check_sizes(sizes: tuple[int, ...], example: str) -> None:
    """Refuses anything but two or more positive integers."""
    if len(sizes) < 2 or not all(map(is_count, sizes)):
        raise ValueError(f"sizes must be two or more positive integers, got {sizes}; write {example}")
