"""Nets of images by a word: convolutions of stride 2, and what stands between them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import nn

from dlvm.experiments.data import Loader
from dlvm.experiments.options.variables import picture_shape
from dlvm.nets import Conv, Deconv, GatedBlock, PixelFeatures, ResidualBlock

NetWord = Literal["mlp", "conv", "residual", "gated"]
BLOCKS: dict[str, Callable[..., nn.Module] | None] = {"conv": None, "residual": ResidualBlock, "gated": GatedBlock}


def conv_net(word: NetWord, sizes: tuple[int, ...], data: Loader, activation: Callable[[], nn.Module]) -> Conv:
    """From images to features.

    Args:
        word: for what stands between the convolutions.
        sizes: numbers in an image, maps after each convolution, features. An image of as many numbers again, as a mask
            beside it, has as many channels again.
        data: whose images they are.
        activation: makes the nonlinearity.

    Raises:
        ValueError: the data are no images.

    Example:
        >>> from dlvm.experiments.data import digits
        >>> conv_net("residual", (64, 8, 32), digits().train, nn.ELU).out_features
        32
    """
    channels, *sides = _shape(word, data)
    times = sizes[0] // math.prod((channels, *sides))
    if sizes[0] != times * math.prod((channels, *sides)):
        raise ValueError(
            f"net must be mlp for what the encoder sees of these data, {sizes[0]} numbers of images of "
            f"{channels} x {sides[0]} x {sides[1]}, got {word}"
        )
    block = _block(word, activation)
    return Conv(*sizes, activation=activation, shape=(times * channels, *sides), block=block)


def deconv_net(word: NetWord, sizes: tuple[int, ...], data: Loader, activation: Callable[[], nn.Module]) -> Deconv:
    """From features to images; see ``conv_net``.

    Args:
        word: for what stands between the convolutions.
        sizes: features, maps before each convolution, numbers in an image.
        data: whose images they are.
        activation: makes the nonlinearity.
    """
    return Deconv(*sizes, activation=activation, shape=_shape(word, data), block=_block(word, activation))


def deconv_features(
    word: NetWord, sizes: tuple[int, ...], data: Loader, activation: Callable[[], nn.Module]
) -> PixelFeatures:
    """From features to maps as large as an image, as many as before the last convolution; see ``conv_net``.

    Args:
        word: for what stands between the convolutions.
        sizes: features, maps before each convolution.
        data: whose images they are.
        activation: makes the nonlinearity.
    """
    shape = (sizes[-1], *_shape(word, data)[1:])
    net = Deconv(*sizes, math.prod(shape), activation=activation, shape=shape, block=_block(word, activation))
    return PixelFeatures(net, shape, activation)


def _shape(word: NetWord, data: Loader) -> tuple[int, int, int]:
    if data.image_shape is None:
        raise ValueError(f"net must be mlp for data in columns, which have no neighbours, got {word}")
    return picture_shape(data)


def _block(word: NetWord, activation: Callable[[], nn.Module]) -> Callable[[int], nn.Module] | None:
    block = BLOCKS[word]
    return None if block is None else partial(block, activation=activation)
