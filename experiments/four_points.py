"""Four data points of four bits with a latent plane: what any model can reach, and what diagonal Gaussians can."""

from __future__ import annotations

import math

import torch
from torch import Tensor

POINTS = torch.eye(4)
FLOOR = -math.log(4)  # mean log p(x) of no model is above it, since four distinct data share a mass of at most 1
CORNERS = 0.85 * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])


def diagonal_elbo(loc: Tensor, log_scale: Tensor, half_width: float = 5.0, points: int = 81) -> Tensor:
    """The mean ELBO of four diagonal Gaussians with the best of all decoders, by quadrature.

        p(x_j = 1 | z) = q_j(z) / sum_i q_i(z),   q_i = N(loc_i, diag(scale_i^2)),   prior N(0, I)

    Returns:
        0-d, nats per datum; differentiable.

    Args:
        loc, log_scale: shape (4, 2), one row a datum.
        half_width, points: of the grid along each axis.

    Example:
        >>> diagonal_elbo(CORNERS, torch.full((4, 2), math.log(0.5))).item()  # doctest: +ELLIPSIS
        -1.796...
    """
    axis = torch.linspace(-half_width, half_width, points, dtype=loc.dtype)
    z, cell = torch.cartesian_prod(axis, axis)[:, None], (axis[1] - axis[0]) ** 2
    normal = -0.5 * ((z - loc) / log_scale.exp()).square() - log_scale - 0.5 * math.log(2 * math.pi)
    log_q = normal.sum(-1)
    log_on = log_q.log_softmax(1)
    log_off = torch.log1p(-log_on.exp().clamp(max=1 - 1e-6))
    log_px = log_on - log_off + log_off.sum(1, keepdim=True)
    rate = 0.5 * (loc.square() + (2 * log_scale).exp() - 1 - 2 * log_scale).sum(-1)
    return ((log_q.exp() * log_px).sum(0) * cell - rate).mean()


def best_diagonal(starts: int = 3, steps: int = 200) -> float:
    """The highest ELBO found over four diagonal Gaussians, each start drawn at random, nats per datum."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(starts):
        loc = torch.randn(4, 2, generator=generator).requires_grad_()
        log_scale = torch.full((4, 2), math.log(0.5), requires_grad=True)
        adam = torch.optim.Adam([loc, log_scale], lr=0.05)
        for _ in range(steps):
            adam.zero_grad()
            loss = -diagonal_elbo(loc, log_scale)
            loss.backward()
            adam.step()
        found.append(-loss.item())
    return max(found)
