"""Kullback-Leibler divergences that torch and Pyro lack; importing the package registers them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, register_kl


@register_kl(MultivariateNormal, Independent)
def full_rank_to_diagonal(q: MultivariateNormal, p: Independent) -> Tensor:
    """KL from any Gaussian to a diagonal one, shape (*batch), nats.

    KL(N(m, L L^T) || N(a, diag(s^2))) = 1/2 sum_i [ (sum_j L_ij^2 + (m_i - a_i)^2) / s_i^2 - 1 + 2 log(s_i / L_ii) ]

    Raises:
        NotImplementedError: p is not a vector of independent Gaussians (KL estimators then fall back to sampling).
    """
    if not (isinstance(p.base_dist, Normal) and p.reinterpreted_batch_ndims == 1):
        raise NotImplementedError
    loc, scale, tril = p.base_dist.loc, p.base_dist.scale, q.scale_tril
    squares = (tril.square().sum(-1) + (q.loc - loc).square()) / scale.square()
    logs = torch.log(scale / tril.diagonal(dim1=-2, dim2=-1))
    return (0.5 * (squares - 1) + logs).sum(-1)
