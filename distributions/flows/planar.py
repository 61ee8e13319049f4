"""The planar flow, conditioned on a context."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlvm.distributions.flows.base import Flow, OneWay, above_minus_one, shrunk
from dlvm.distributions.flows.tanh_inverse import unbent
from dlvm.distributions.scale import limited


class Planar(OneWay):
    """A step that stretches the space along one direction, across a hyperplane.

        z = y + v tanh(w'y + b),   v = u + (m(w'u) - w'u) w / |w|^2,   m(x) = softplus(x + log(e - 1)) - 1
        log |det dz/dy| = log(1 + m(w'u) (1 - tanh^2(w'y + b)))

    The correction makes w'v = m(w'u) > -1, so that the step can be inverted; it leaves u = 0 alone. With x = w'y + b,

        y = z - v tanh(x),   x + w'v tanh(x) = w'z + b

    Args:
        u, w: shape (*batch, D).
        b: shape (*batch, 1).
    """

    def __init__(self, u: Tensor, w: Tensor, b: Tensor, cache_size: int = 1):
        super().__init__(u, w, b, cache_size=cache_size)
        along = (w * u).sum(-1, keepdim=True)
        self.w, self.b, self.slope = w, b, above_minus_one(along)
        self.v = u + (self.slope - along) * w / w.square().sum(-1, keepdim=True).clamp_min(1e-12)

    def push(self, y: Tensor) -> tuple[Tensor, Tensor]:
        t = torch.tanh((self.w * y).sum(-1, keepdim=True) + self.b)
        return y + self.v * t, torch.log1p(self.slope * (1 - t.square())).squeeze(-1)

    def _inverse(self, z: Tensor) -> Tensor:
        x = unbent((self.w * z).sum(-1, keepdim=True) + self.b, self.slope)
        return z - self.v * torch.tanh(x)


class PlanarStep(nn.Module):
    """Features h -> Planar, its parameters linear in h and within -10 and 10; near the identity at the start."""

    def __init__(self, width: int, dim: int, t: int = 0):
        super().__init__()
        self.dim, self.linear = dim, shrunk(nn.Linear(width, 2 * dim + 1), dim)

    def forward(self, h: Tensor) -> Planar:
        return Planar(*limited(self.linear(h)).split([self.dim, self.dim, 1], dim=-1))


class PlanarNormal(Flow):
    """A diagonal Gaussian followed by ``depth`` planar steps, all given a context.

        z_t = z_{t-1} + v_t(h) tanh(w_t(h)'z_{t-1} + b_t(h))

    Args:
        net, dim, depth: see ``Flow``.

    Raises:
        ValueError: ``depth`` is below 1.

    References:
        Variational Inference with Normalizing Flows, Rezende, Mohamed, 2015, arXiv:1505.05770.

    Example:
        >>> q = PlanarNormal(nn.Linear(4, 8), 3)(torch.zeros(5, 4))
        >>> q.log_prob(q.rsample()).shape
        torch.Size([5])
    """

    def __init__(self, net: nn.Module, dim: int, depth: int = 8):
        super().__init__(net, dim, depth, PlanarStep)
