"""The radial flow, conditioned on a context."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlvm.distributions.flows.base import Flow, OneWay, above_minus_one, shrunk
from dlvm.distributions.scale import positive


class Radial(OneWay):
    """A step that draws the space towards a point, or pushes it away.

        z = y + beta (y - c) / (alpha + r),   r = |y - c|,   beta = alpha m(b) > -alpha
        log |det dz/dy| = (D - 1) log(1 + beta / (alpha + r)) + log(1 + alpha beta / (alpha + r)^2)

    m(b) = softplus(b + log(e - 1)) - 1 is 0 at b = 0. The inverse is in closed form,

        y = c + (z - c) / (1 + beta / (alpha + r)),   r^2 + (alpha + beta - |z - c|) r - alpha |z - c| = 0

    Args:
        b: shape (*batch, 1).
        alpha: shape (*batch, 1), positive.
        c: shape (*batch, D).
    """

    def __init__(self, b: Tensor, alpha: Tensor, c: Tensor, cache_size: int = 1):
        super().__init__(b, alpha, c, cache_size=cache_size)
        self.slope, self.alpha, self.c = above_minus_one(b), alpha, c

    @property
    def beta(self) -> Tensor:
        """Strength, shape (*batch, 1): negative towards c, positive away from it."""
        return self.alpha * self.slope

    def push(self, y: Tensor) -> tuple[Tensor, Tensor]:
        away = y - self.c
        near = self.alpha / (self.alpha + torch.linalg.vector_norm(away, dim=-1, keepdim=True))
        across, along = torch.log1p(self.slope * near), torch.log1p(self.slope * near.square())
        return y + self.slope * near * away, ((y.shape[-1] - 1) * across + along).squeeze(-1)

    def _inverse(self, z: Tensor) -> Tensor:
        away = z - self.c
        far = torch.linalg.vector_norm(away, dim=-1, keepdim=True)
        p = self.alpha * (1 + self.slope) - far
        q = p.abs() + (p.square() + 4 * self.alpha * far).sqrt()
        r = torch.where(p > 0, 2 * self.alpha * far / q, q / 2)  # of two equal forms, the one that cancels nothing
        return self.c + away / (1 + self.slope * self.alpha / (self.alpha + r))


class RadialStep(nn.Module):
    """Features h -> Radial: b, log alpha and c are linear in h; near the identity at the start."""

    def __init__(self, width: int, dim: int, t: int = 0):
        super().__init__()
        self.dim, self.linear = dim, shrunk(nn.Linear(width, 2 + dim), 1)

    def forward(self, h: Tensor) -> Radial:
        b, raw, c = self.linear(h).split([1, 1, self.dim], dim=-1)
        return Radial(b, positive(raw), c)


class RadialNormal(Flow):
    """A diagonal Gaussian followed by ``depth`` radial steps, all given a context.

        z_t = z_{t-1} + beta_t(h) (z_{t-1} - c_t(h)) / (alpha_t(h) + |z_{t-1} - c_t(h)|)

    Args:
        net, dim, depth: see ``Flow``.

    Raises:
        ValueError: ``depth`` is below 1.

    References:
        Variational Inference with Normalizing Flows, Rezende, Mohamed, 2015, arXiv:1505.05770.

    Example:
        >>> q = RadialNormal(nn.Linear(4, 8), 3)(torch.zeros(5, 4))
        >>> q.log_prob(q.rsample()).shape
        torch.Size([5])
    """

    def __init__(self, net: nn.Module, dim: int, depth: int = 8):
        super().__init__(net, dim, depth, RadialStep)
