"""Nets that say what the noise in noisy data is."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dlvm.distributions.diffusion.noising import alpha_and_sigma
from dlvm.nets import Bottleneck, Maps, out_features
from dlvm.nets.arguments import count
from dlvm.nets.residual import pooled, square_shape, start_at

WAVES = 4  # sines and cosines of gamma each
FEATURES = 1 + 2 * WAVES
WIDEST = 20.0  # of gamma, from about -10 to 10


class Denoiser(nn.Module):
    """The noise in z_t, by a net of z_t and of how much noise there is.

        eps(z_t, gamma) = sigma z_t + alpha net(z_t, gamma / 10, sin(2^k a), cos(2^k a)),   a = pi gamma / 20, k < 4

    The first term is the best guess for data that are N(0, I); the net says how far others differ, as the velocity
    alpha e - sigma u, which has the same size at all times. It sees z_t and nine numbers of gamma as one vector.

    Args:
        net: vectors of dim + 9 numbers -> dim numbers, with ``in_features`` and ``out_features``, as
            ``MLP(dim + 9, 100, dim)`` or ``UNet(dim)``.

    Raises:
        ValueError: the net takes other than 9 numbers more than it gives.
        TypeError: the net has no ``out_features``.

    References:
        Variational Diffusion Models, Kingma, Salimans, Poole, Ho, 2021, arXiv:2107.00630.
        Progressive Distillation for Fast Sampling of Diffusion Models, Salimans, Ho, 2022, arXiv:2202.00512.

    Example:
        >>> from dlvm.nets import MLP
        >>> Denoiser(MLP(3 + 9, 16, 3))(torch.zeros(5, 3), torch.zeros(5)).shape
        torch.Size([5, 3])
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net, self.dim = net, checked(net)

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        """z_t, shape (*batch, dim), and gamma(t), (*batch) or () -> the noise, shape (*batch, dim)."""
        alpha, sigma = alpha_and_sigma(gamma)
        return sigma * z + alpha * self.net(seen(z, gamma))


class BitDenoiser(nn.Module):
    """The noise in z_t of bits, by Bayes' rule: the net says how probable a 1 is but for what its place of z_t says.

        eps(z_t, gamma) = (z_t - alpha u^) / sigma,   u^ = E[u | z_t] = tanh(alpha z_t / sigma^2 + l / 2),   u = +-1

    l = net(z_t, numbers of gamma) are the logits. A net of zeros is exact for fair bits, and constant logits for any
    that are independent; a ``Denoiser`` would have to learn the hyperbolic tangent of every place at every noise.

    Args:
        net: as for ``Denoiser``.

    Raises:
        ValueError, TypeError: as for ``Denoiser``.

    Example:
        >>> from dlvm.nets import MLP
        >>> BitDenoiser(MLP(3 + 9, 16, 3))(torch.zeros(5, 3), torch.zeros(5)).shape
        torch.Size([5, 3])
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net, self.dim = net, checked(net)

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        """z_t, shape (*batch, dim), and gamma(t), (*batch) or () -> the noise, shape (*batch, dim)."""
        alpha, sigma = alpha_and_sigma(gamma)
        u = torch.tanh(alpha / sigma.square() * z + 0.5 * self.net(seen(z, gamma)))
        return (z - alpha * u) / sigma


def seen(z: Tensor, gamma: Tensor) -> Tensor:
    """What a net sees of z_t and of gamma(t), shape (*batch, dim + 9)."""
    angle = gamma.unsqueeze(-1) * (math.pi / WIDEST) * 2 ** torch.arange(WAVES, dtype=z.dtype, device=z.device)
    numbers = torch.cat([gamma.unsqueeze(-1) * (2 / WIDEST), angle.sin(), angle.cos()], dim=-1)
    return torch.cat([z, numbers.expand(*z.shape[:-1], FEATURES)], dim=-1)


def checked(net: nn.Module) -> int:
    """How many numbers a denoiser's net gives; refuses one that does not take nine more."""
    dim = out_features(net)
    if getattr(net, "in_features", None) != dim + FEATURES:
        raise ValueError(
            f"net must take {FEATURES} numbers more than it gives, got {getattr(net, 'in_features', None)} to {dim}; "
            f"write MLP({dim + FEATURES}, 100, {dim})"
        )
    return dim


class UNet(nn.Module):
    """Images -> images, by maps of the whole side, of a half and of a quarter, and back.

    What the way down has at a side is added on the way up. The last layer starts at 0.

    Args:
        dim: pixels and channels of the image, channel by channel.
        width: number of maps.
        channels: of the image.

    Raises:
        ValueError, TypeError: the image is no square whose side is a multiple of 4, or a number is below 1.

    References:
        U-Net: Convolutional Networks for Biomedical Image Segmentation, Ronneberger, Fischer, Brox, 2015,
            arXiv:1505.04597.

    Example:
        >>> UNet(64, width=4)(torch.zeros(5, 64 + 9)).shape
        torch.Size([5, 64])
    """

    def __init__(self, dim: int, width: int = 32, channels: int = 1):
        super().__init__()
        self.shape = square_shape(dim, channels)
        count(width=width)
        side = self.shape[-1]
        if side % 4:
            raise ValueError(f"dim must be of images whose side is a multiple of 4, got {side} x {side}; take an MLP")
        self.in_features, self.out_features, self.sides = dim + FEATURES, dim, (side, side // 2, side // 4)
        self.first = Maps(nn.Conv2d(channels, width, kernel_size=3, padding=1))
        self.seen = nn.Linear(FEATURES, width)
        self.down, self.up = (
            nn.ModuleList(Bottleneck(width, max(1, width // 2), width, each, last=0.5) for each in self.sides)
            for _ in range(2)
        )
        last = nn.Conv2d(width, channels, kernel_size=3, padding=1)
        start_at(last, 0.0)
        self.last = Maps(nn.GELU(), last)

    def forward(self, inputs: Tensor) -> Tensor:
        """Shape (*batch, dim + 9) -> (*batch, dim)."""
        z, seen = inputs.split((self.out_features, FEATURES), dim=-1)
        h = self.first(z.unflatten(-1, self.shape)) + self.seen(seen)[..., None, None]
        kept = []
        for side, block in zip(self.sides, self.down, strict=True):
            h = pooled(h, side)
            h = h + block(h)
            kept.append(h)
        for side, block, before in zip(self.sides[::-1], list(self.up)[::-1], kept[::-1], strict=True):
            if side > h.shape[-1]:
                h = before + h.repeat_interleave(2, -1).repeat_interleave(2, -2)
            h = h + block(h)
        return self.last(h).flatten(-3)
