"""A Gaussian whose covariance is a diagonal and a few directions."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from distributions.scale import limited, positive
from nets import out_features
from nets.numbers import count, whole


class LowRankNormal(nn.Module):
    """A Gaussian with correlations of low rank given a context.

        q(z | h) = N(z; loc(h), S (I + V(h) V(h)^T) S),  S = diag(scale(h))

    V has shape (dim, rank), and its elements stay between -10 and 10: the covariance can be factored at any context.
    It costs O(dim rank^2), and starts near a plain DiagonalNormal.

    Args:
        net: contexts -> features, with ``out_features``; loc, raw scale and raw V are linear in the features.
        dim: number of dimensions.
        rank: number of columns of V; rank dim - 1 covers every covariance up to V's limit.

    Raises:
        ValueError: ``rank`` is below 1.

    References:
        Gaussian Variational Approximation with a Factor Covariance Structure, Ong, Nott, Smith, 2018,
            arXiv:1701.03208.

    Example:
        >>> LowRankNormal(nn.Linear(4, 8), 3, rank=1)(torch.zeros(5, 4)).cov_factor.shape
        torch.Size([5, 3, 1])
    """

    def __init__(self, net: nn.Module, dim: int, rank: int = 2):
        super().__init__()
        count(dim=dim)
        whole(rank=rank)
        if rank < 1:
            raise ValueError(f"rank must be at least 1, got {rank}; for no correlations use DiagonalNormal")
        self.net, self.dim, self.rank = net, dim, rank
        self.head = nn.Linear(out_features(net), (2 + rank) * dim)
        with torch.no_grad():  # not 0: there the gradient of V vanishes
            self.head.weight[2 * dim :] *= 0.1
            self.head.bias[2 * dim :] *= 0.1

    def forward(self, *context: Tensor) -> dist.Distribution:
        loc, raw, factor = self.head(self.net(*context)).split([self.dim, self.dim, self.rank * self.dim], dim=-1)
        scale = positive(raw)
        factor = scale.unsqueeze(-1) * limited(factor).unflatten(-1, (self.dim, self.rank))
        return dist.LowRankMultivariateNormal(loc, factor, scale.square())
