"""Noise on what a net sees while it is trained: the encoder of a denoising autoencoder."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dlvm.nets.arguments import module, out_features, real
from dlvm.nets.inputs import tensor
from dlvm.nets.mlp import MLP


class Corrupted(nn.Module):
    """A net that sees corrupted data in training mode, and data as they are in evaluation mode.

        net(keep x + scale noise),   keep_d = 0 with probability drop and otherwise 1,   noise ~ N(0, I)

    As an encoder of an autoencoder, which is to tell the data as they were, it makes a denoising one. Each call draws
    anew, so that it must not stand where a guide is run twice on the same draws, as STL and DReG do with several sites.

    Args:
        net: of as many numbers as a datum has.
        drop: share of the numbers that are set to 0, from 0 to below 1.
        scale: standard deviation of what is added, in units of the data.

    Raises:
        TypeError: the net is no module, or has no ``out_features``; a number is none.
        ValueError: ``drop`` or ``scale`` is out of range.

    References:
        Extracting and Composing Robust Features with Denoising Autoencoders, Vincent, Larochelle, Bengio, Manzagol,
            2008.

    Example:
        >>> net = Corrupted(MLP(4, 8), drop=0.5)
        >>> x = torch.ones(3, 4)
        >>> bool(torch.equal(net.eval()(x), net.net(x)))
        True
    """

    def __init__(self, net: nn.Module, drop: float = 0.25, scale: float = 0.0):
        super().__init__()
        module(net=net)
        real(drop=drop, scale=scale)
        if not 0 <= drop < 1:
            raise ValueError(f"drop must be from 0 to below 1, the share of numbers set to 0, got {drop}")
        if not 0 <= scale < math.inf:
            raise ValueError(f"scale must be at least 0 and finite, got {scale}; pass 0 to add nothing")
        self.net, self.out_features, self.drop, self.scale = net, out_features(net), float(drop), float(scale)

    @property
    def activation(self) -> nn.Module | None:
        """The net's nonlinearity, where it has one and a layer before it."""
        without = isinstance(self.net, MLP) and not len(self.net.layers)
        return None if without else getattr(self.net, "activation", None)

    def forward(self, x: Tensor) -> Tensor:
        """
        Args:
            x: shape (*batch, dim).

        Returns:
            shape (*batch, out_features).
        """
        x = tensor(x)
        if self.training and self.drop:
            x = x * (torch.rand_like(x) >= self.drop)
        if self.training and self.scale:
            x = x + self.scale * torch.randn_like(x)
        return self.net(x)
