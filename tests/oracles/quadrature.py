"""Integrals over a latent of one or two dimensions, for models without a closed form.

`log_joint(z)` maps z (n, dim) to log p(x, z) of shape (*batch, n): a whole batch of x is integrated at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from oracles.gaussians import Gaussian

LogJoint = Callable[[Tensor], Tensor]


def grid(half_width: float = 7.0, points: int = 400, dim: int = 2) -> tuple[Tensor, float]:
    """Points (points^dim, dim) of [-half_width, half_width]^dim, row-major, and the log volume of a cell."""
    axis = torch.linspace(-half_width, half_width, points, dtype=torch.float64)
    return torch.cartesian_prod(*[axis] * dim).reshape(-1, dim), dim * math.log(2 * half_width / (points - 1))


def log_px_grid(log_joint: LogJoint, half_width: float = 7.0, points: int = 400, dim: int = 2) -> Tensor:
    """log p(x), shape (*batch), by the trapezoid rule (the integrand must die inside)."""
    z, log_cell = grid(half_width, points, dim)
    return log_joint(z).logsumexp(-1) + log_cell


def posterior_grid(
    log_joint: LogJoint, half_width: float = 7.0, points: int = 400, dim: int = 2
) -> tuple[Tensor, Tensor]:
    """Grid points (n, dim) and the density p(z|x) there (*batch, n); times the cell volume it sums to 1."""
    z, log_cell = grid(half_width, points, dim)
    log_p = log_joint(z)
    return z, (log_p - log_p.logsumexp(-1, keepdim=True) - log_cell).exp()


def gauss_hermite(nodes: int = 80, dim: int = 2) -> tuple[Tensor, Tensor]:
    """Points (nodes^dim, dim) and log weights with sum_i w_i f(z_i) = E f(z) for z ~ N(0, I)."""
    points, weights = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(nodes))
    log_weights = weights.log() - 0.5 * math.log(2 * math.pi)
    return (
        torch.cartesian_prod(*[points] * dim).reshape(-1, dim),
        torch.cartesian_prod(*[log_weights] * dim).reshape(-1, dim).sum(-1),
    )


def log_px_hermite(log_joint: LogJoint, nodes: int = 80, dim: int = 2) -> Tensor:
    """log p(x), shape (*batch), by Gauss-Hermite quadrature against the N(0, I) prior."""
    z, log_weights = gauss_hermite(nodes, dim)
    return (log_joint(z) - log_standard_normal(z) + log_weights).logsumexp(-1)


def log_standard_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I) over the last dimension."""
    return -0.5 * (z.square().sum(-1) + z.shape[-1] * math.log(2 * math.pi))


def elbo_hermite(log_joint: LogJoint, loc: Tensor, scale_tril: Tensor, nodes: int = 40) -> Tensor:
    """The ELBO of q(z) = N(loc, L L'), shape (*batch), for one x or a batch that shares q.

    Args: loc (dim,), scale_tril L (dim, dim); differentiable in both.
    """
    dim = loc.shape[-1]
    points, log_weights = gauss_hermite(nodes, dim)
    energy = (log_joint(loc + points @ scale_tril.T) * log_weights.exp()).sum(-1)
    return energy + Gaussian(loc, scale_tril @ scale_tril.T).entropy()


def best_gaussian(
    log_joint: LogJoint, dim: int = 2, diagonal: bool = False, nodes: int = 40, steps: int = 100
) -> tuple[Gaussian, Tensor]:
    """The Gaussian q(z) with the best ELBO for one x, by L-BFGS on quadrature, and that ELBO (scalar)."""
    loc = torch.zeros(dim, dtype=torch.float64, requires_grad=True)
    raw = torch.zeros(dim, dim, dtype=torch.float64, requires_grad=True)

    def scale_tril() -> Tensor:
        spread = torch.diag(raw.diagonal().exp())
        return spread if diagonal else spread + raw.tril(-1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -elbo_hermite(log_joint, loc, scale_tril(), nodes)
        loss.backward()
        return loss

    optimizer = torch.optim.LBFGS(
        [loc, raw],
        max_iter=steps,
        tolerance_grad=1e-10,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )
    optimizer.step(closure)
    with torch.no_grad():
        factor = scale_tril()
        return Gaussian(loc.detach(), factor @ factor.T), elbo_hermite(log_joint, loc, factor, nodes)
