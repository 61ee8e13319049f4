"""Convolutions that a second convolution lets through or holds back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dlvm.nets.arguments import count, made
from dlvm.nets.conv import Maps


class GatedConv(Maps):
    """A convolution, and a second one that says how much of it comes through, place by place.

        out = (W * h + b) sigmoid(V * h + c)

    Args:
        in_channels, out_channels: number of maps.
        kernel_size: side of the kernels, odd, so that maps keep their size where the stride is 1.
        stride: of both convolutions; a side s becomes s / stride, upwards.

    Raises:
        ValueError: a number is below 1, or the kernels have an even side.
        TypeError: one is no integer.

    References:
        Language Modeling with Gated Convolutional Networks, Dauphin, Fan, Auli, Grangier, 2017, arXiv:1612.08083.

    Example:
        >>> GatedConv(3, 8, stride=2)(torch.zeros(5, 4, 3, 7, 7)).shape
        torch.Size([5, 4, 8, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1):
        count(in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size, stride=stride)
        if kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size must be odd, got {kernel_size}; pass {kernel_size + 1}, or 1 for no neighbours"
            )
        super().__init__(nn.Conv2d(in_channels, 2 * out_channels, kernel_size, stride, padding=kernel_size // 2))
        self.out_features = out_channels

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of shape (*batch, in_channels, height, width) -> (*batch, out_channels, height', width')."""
        out, gate = super().forward(maps).chunk(2, dim=-3)
        return out * torch.sigmoid(gate)


class GatedBlock(Maps):
    """A residual block whose change is gated.

        out = h + a sigmoid(g),   (a, g) = W_2 * activation(W_1 * activation(h) + b_1) + b_2,   W_i of 3 x 3 pixels

    Args:
        channels: number of maps, in and out.
        activation: makes the nonlinearity.

    Raises:
        ValueError: ``channels`` is below 1.
        TypeError: it is no integer, or ``activation`` does not make a module.

    References:
        PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other Modifications,
            Salimans, Karpathy, Chen, Kingma, 2017, arXiv:1701.05517.

    Example:
        >>> GatedBlock(8)(torch.zeros(5, 8, 7, 7)).shape
        torch.Size([5, 8, 7, 7])
    """

    def __init__(self, channels: int, activation: Callable[[], nn.Module] = nn.ELU):
        count(channels=channels)
        before, between = (made("activation", activation) for _ in range(2))
        first, second = (nn.Conv2d(channels, n * channels, kernel_size=3, padding=1) for n in (1, 2))
        super().__init__(before, first, between, second)
        self.out_features = channels

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of shape (*batch, channels, height, width) -> the same shape."""
        change, gate = super().forward(maps).chunk(2, dim=-3)
        return maps + change * torch.sigmoid(gate)
