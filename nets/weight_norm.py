"""Layers whose weights are normalised: a direction times a length, or a map that lengthens nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlvm.nets.arguments import count, whole

STEPS = 15  # of power iteration at the start


class NormedLinear(nn.Linear):
    """A linear layer that learns direction and length of each output's weights apart.

        out_j = g_j v_j . h / |v_j| + b_j,   g_j = |v_j| at the start

    At the start it is ``nn.Linear``; ``weight`` holds v and ``gain`` holds g.

    Args:
        in_features, out_features: widths.
        bias: whether there is b.

    Raises:
        ValueError: a width is below 1.
        TypeError: a width is no integer.

    References:
        Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep Neural Networks, Salimans,
            Kingma, 2016, arXiv:1602.07868.

    Example:
        >>> layer = NormedLinear(3, 8)
        >>> layer(torch.zeros(5, 4, 3)).shape, layer.gain.shape
        (torch.Size([5, 4, 8]), torch.Size([8]))
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        count(in_features=in_features, out_features=out_features)
        super().__init__(in_features, out_features, bias)
        self.gain = nn.Parameter(_lengths(self.weight).detach().flatten())

    def forward(self, value: Tensor) -> Tensor:
        """Shape (*batch, in_features) -> (*batch, out_features)."""
        return F.linear(value, _normed(self.weight, self.gain), self.bias)


class NormedConv2d(nn.Conv2d):
    """A convolution that learns direction and length of each output map's weights apart; see ``NormedLinear``.

        out_j = g_j (v_j * h) / |v_j| + b_j,   g_j = |v_j| at the start

    It is a layer of ``Maps`` as ``nn.Conv2d`` is.

    Args:
        in_channels, out_channels: number of maps.
        kernel_size: side of the kernels.
        stride, padding: as in ``nn.Conv2d``.

    Raises:
        ValueError: a number is below 1, or the padding below 0.
        TypeError: one is no integer.

    Example:
        >>> NormedConv2d(3, 8, 3, padding=1)(torch.zeros(5, 3, 7, 7)).shape
        torch.Size([5, 8, 7, 7])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, padding: int = 0):
        count(in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size, stride=stride)
        whole(padding=padding)
        if padding < 0:
            raise ValueError(f"padding must be at least 0, got {padding}; pass kernel_size // 2 to keep the size")
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)
        self.gain = nn.Parameter(_lengths(self.weight).detach().flatten())

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of shape (batch, in_channels, height, width) -> (batch, out_channels, height', width')."""
        return self._conv_forward(maps, _normed(self.weight, self.gain), self.bias)


class SpectralLinear(nn.Linear):
    """A linear layer whose weights are divided by their largest singular value, so that it lengthens nothing.

        out = W h / sigma(W) + b,   sigma = |W' u|

    u is followed by a step of power iteration at each call while training, and stays as it is in evaluation mode.

    Args:
        in_features, out_features: widths.
        bias: whether there is b.

    Raises:
        ValueError: a width is below 1.
        TypeError: a width is no integer.

    References:
        Spectral Normalization for Generative Adversarial Networks, Miyato, Kataoka, Koyama, Yoshida, 2018,
            arXiv:1802.05957.

    Example:
        >>> layer = SpectralLinear(3, 8)
        >>> layer(torch.zeros(5, 4, 3)).shape
        torch.Size([5, 4, 8])
    """

    left: Tensor

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        count(in_features=in_features, out_features=out_features)
        super().__init__(in_features, out_features, bias)
        self.register_buffer("left", torch.randn(out_features))
        self._follow(STEPS)

    @torch.no_grad()
    def _follow(self, steps: int) -> None:
        """So many steps of power iteration."""
        for _ in range(steps):
            right = F.normalize(self.weight.T @ self.left, dim=0)
            self.left.copy_(F.normalize(self.weight @ right, dim=0))

    def forward(self, value: Tensor) -> Tensor:
        """Shape (*batch, in_features) -> (*batch, out_features)."""
        if self.training:
            self._follow(1)
        stretch = torch.linalg.vector_norm(self.weight.T @ self.left.clone())  # a later call moves the buffer
        return F.linear(value, self.weight / stretch.clamp_min(torch.finfo(stretch.dtype).tiny), self.bias)


def _lengths(weight: Tensor) -> Tensor:
    """Of each output's weights, which are the first dimension; the others are of size 1."""
    return torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.dim())), keepdim=True)


def _normed(weight: Tensor, gain: Tensor) -> Tensor:
    lengths = _lengths(weight).clamp_min(torch.finfo(weight.dtype).tiny)
    return weight * (gain.view(lengths.shape) / lengths)
