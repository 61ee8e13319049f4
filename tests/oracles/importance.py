"""The importance-weighted bound L_K = E log (1/K) sum_k w_k, exactly, for any K."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from oracles.gaussians import Gaussian, chi2
from oracles.quadrature import LogJoint, grid, log_standard_normal


def iwae(
    log_joint: LogJoint,
    q: Gaussian,
    num_particles: int,
    half_width: float = 14.0,
    points: int = 241,
    chunk: int = 64,
) -> Tensor:
    """L_K of a Gaussian q over one- or two-dimensional z, scalar, nats.

    From log s = int_0^inf (e^-t - e^-ts) / t dt:  E log (1/K) sum r_k = int (e^-t - phi(t/K)^K) dt/t with
    phi(t) = E_q e^(-t r) and r = w / p(x). The expectation over K draws becomes one over a single draw, on a
    grid of `points` per axis reaching `half_width` standard deviations of q, and an integral over log t.
    """
    dim = q.loc.shape[-1]
    standard, log_cell = grid(half_width, points, dim)
    z = q.loc + standard @ torch.linalg.cholesky(q.cov).T
    log_w = log_joint(z) - q.log_prob(z)
    log_mass = log_standard_normal(standard) + log_cell
    log_px = (log_w + log_mass).logsumexp(-1)
    ratio, mass = (log_w - log_px).exp(), log_mass.exp()

    log_t = torch.linspace(-25, 45, 701, dtype=torch.float64)
    t = log_t.exp() / num_particles
    laplace = torch.cat([torch.exp(-part[:, None] * ratio) @ mass for part in t.split(chunk)])
    integrand = torch.exp(-log_t.exp()) - laplace**num_particles
    return log_px + torch.trapezoid(integrand, log_t)


def iwae_asymptote(log_px: Tensor, q: Gaussian, posterior: Gaussian, num_particles: int) -> Tensor:
    """log p(x) - chi2(p || q) / (2K), the leading order of L_K for large K."""
    return log_px - chi2(posterior, q) / (2 * num_particles)


def iwae_monte_carlo(log_w: Tensor, num_particles: int) -> tuple[Tensor, Tensor]:
    """Estimate of L_K and its standard error from independent log weights (n,), n a multiple of K."""
    if len(log_w) % num_particles:
        raise ValueError(
            f"log_w has {len(log_w)} entries, expected a multiple of num_particles={num_particles}; cut it"
        )
    bounds = log_w.reshape(-1, num_particles).logsumexp(-1) - math.log(num_particles)
    return bounds.mean(), bounds.std() / math.sqrt(len(bounds))
