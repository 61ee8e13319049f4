"""Divergences between Gaussians, in closed form (nats)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Gaussian(NamedTuple):
    """N(loc, cov); loc (*batch, k), cov (k, k) or (*batch, k, k)."""

    loc: Tensor
    cov: Tensor

    def log_prob(self, z: Tensor) -> Tensor:
        k = self.loc.shape[-1]
        return -0.5 * (k * math.log(2 * math.pi) + torch.logdet(self.cov) + quadratic(z - self.loc, self.cov))

    def entropy(self) -> Tensor:
        return 0.5 * (self.loc.shape[-1] * math.log(2 * math.pi * math.e) + torch.logdet(self.cov))


def quadratic(delta: Tensor, cov: Tensor) -> Tensor:
    """delta' cov^-1 delta over the last dimension."""
    return (delta * torch.linalg.solve(cov, delta.unsqueeze(-1)).squeeze(-1)).sum(-1)


def kl(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q || p), shape (*batch)."""
    trace = torch.linalg.solve(p.cov, q.cov).diagonal(dim1=-2, dim2=-1).sum(-1)
    volume = torch.logdet(p.cov) - torch.logdet(q.cov)
    return 0.5 * (trace + quadratic(p.loc - q.loc, p.cov) - q.loc.shape[-1] + volume)


def renyi(q: Gaussian, p: Gaussian, alpha: float) -> Tensor:
    """D_alpha(q || p) = log int q^alpha p^(1-alpha) / (alpha - 1), shape (*batch); alpha = 1 is KL(q || p).

    Raises ValueError where S_alpha = alpha S_p + (1 - alpha) S_q is not positive definite: the integral
    diverges.
    """
    if alpha == 1:
        return kl(q, p)
    mixed = alpha * p.cov + (1 - alpha) * q.cov
    smallest = torch.linalg.eigvalsh(mixed).min().item()
    if smallest <= 0:
        raise ValueError(
            f"alpha={alpha}: D_alpha is infinite; alpha S_p + (1 - alpha) S_q must be positive definite, "
            f"and its smallest eigenvalue is {smallest:.4g}; take alpha closer to [0, 1] or a wider q"
        )
    delta = q.loc - p.loc
    volume = torch.logdet(mixed) - (1 - alpha) * torch.logdet(q.cov) - alpha * torch.logdet(p.cov)
    return 0.5 * alpha * quadratic(delta, mixed) - 0.5 * volume / (alpha - 1)


def chi2(p: Gaussian, q: Gaussian) -> Tensor:
    """chi2(p || q) = E_q (p/q)^2 - 1 = Var_q(p/q), shape (*batch)."""
    return torch.expm1(renyi(p, q, 2.0))


def renyi_bound(log_px: Tensor, q: Gaussian, posterior: Gaussian, alpha: float) -> Tensor:
    """L_alpha = log p(x) - D_alpha(q || p(z|x)); alpha = 1 is the ELBO and alpha = 0 is log p(x) itself."""
    return log_px - renyi(q, posterior, alpha)
