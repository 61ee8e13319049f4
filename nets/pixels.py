"""Flat maps as features of a likelihood over images: what is said of a pixel depends on the maps where it lies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dlvm.nets.arguments import count, made, module, out_features, widths
from dlvm.nets.conv import Maps


class PixelFeatures(nn.Module):
    """A net of flat maps as large as an image, as the features of a likelihood.

        features = net(context) = vec(maps)

    A likelihood asks it for its last layer, see ``last_layer``, and gets a ``PixelReadout``, which is a convolution
    where it would be a matrix of all features by all pixels.

    Args:
        net: contexts -> flat maps, with ``out_features``, as a ``Deconv``.
        shape: (maps, height, width) of what it returns.
        activation: makes the nonlinearity before the last layer.

    Raises:
        ValueError: ``shape`` is none, or the net has another width.
        TypeError: the net is no module or has no ``out_features``, or ``activation`` does not make a module.

    Example:
        >>> from dlvm.distributions import DiscretisedLogistic
        >>> from dlvm.nets import Deconv
        >>> net = PixelFeatures(Deconv(2, 8, 6 * 35, shape=(6, 5, 7)), (6, 5, 7))
        >>> DiscretisedLogistic(net, dim=3 * 35)(torch.zeros(4, 2)).event_shape
        torch.Size([105])
    """

    def __init__(self, net: nn.Module, shape: Sequence[int], activation: Callable[[], nn.Module] = nn.ELU):
        super().__init__()
        module(net=net)
        widths(shape=shape)
        if len(shape) != 3 or math.prod(shape) != out_features(net):
            raise ValueError(
                f"shape must be (maps, height, width) of the net's {out_features(net)} features, got {tuple(shape)}"
            )
        made("activation", activation)
        self.net, self.out_features, self.shape, self.make = net, out_features(net), tuple(shape), activation

    def forward(self, *context: Tensor) -> Tensor:
        """Contexts -> features, shape (*batch, out_features)."""
        return self.net(*context)

    def readout(self, dim: int, per: int = 1, last: bool = False) -> PixelReadout:
        """From the maps to ``per`` numbers for each of ``dim``, the pixels or channels and pixels."""
        return PixelReadout(self.shape, dim, per, last, self.make)


class PixelReadout(nn.Module):
    """Flat maps -> numbers of the pixels of an image of their size.

        out = W * activation(maps) + bias,   W of 3 x 3 pixels, a bias for each number

    Args:
        shape: (maps, height, width).
        dim: numbers of an image, a multiple of its pixels.
        per: what is wanted of each.
        last: whether what belongs to one number stands together, (dim, per), or apart, (per, dim).
        activation: makes the nonlinearity.

    Raises:
        ValueError: ``dim`` is no multiple of the pixels, or a number is below 1.

    Example:
        >>> PixelReadout((6, 5, 7), dim=70, per=2)(torch.zeros(4, 6 * 35)).shape
        torch.Size([4, 140])
    """

    def __init__(
        self,
        shape: Sequence[int],
        dim: int,
        per: int = 1,
        last: bool = False,
        activation: Callable[[], nn.Module] = nn.ELU,
    ):
        super().__init__()
        widths(shape=shape)
        count(dim=dim, per=per)
        maps, *sides = shape
        if len(shape) != 3 or dim % math.prod(sides):
            raise ValueError(
                f"dim must be a multiple of the pixels of shape (maps, height, width), got {dim} for {tuple(shape)}; "
                "make the net's maps as large as the images"
            )
        self.shape, self.dim, self.per, self.last = tuple(shape), dim, per, last
        self.in_features, self.out_features = math.prod(shape), dim * per
        outputs = per * dim // math.prod(sides)
        self.net = Maps(made("activation", activation), nn.Conv2d(maps, outputs, kernel_size=3, padding=1, bias=False))
        self.bias = nn.Parameter(torch.zeros(dim * per))

    def forward(self, features: Tensor) -> Tensor:
        """Flat maps, shape (*batch, in_features) -> shape (*batch, out_features)."""
        out = self.net(features.unflatten(-1, self.shape)).flatten(-3)
        out = out.unflatten(-1, (self.per, self.dim)).transpose(-1, -2).flatten(-2) if self.last else out
        return out + self.bias
