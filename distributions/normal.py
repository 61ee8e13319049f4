"""Gaussian distributions: fixed, diagonal, full-rank."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from distributions.scale import positive
from distributions.self_scored import SelfScoredNormal
from nets import out_features
from nets.numbers import count


class StandardNormal(nn.Module):
    """The fixed Gaussian N(0, I), which moves with the module from device to device.

    Args:
        dim: number of dimensions.

    Example:
        >>> StandardNormal(3)().event_shape
        torch.Size([3])
    """

    def __init__(self, dim: int):
        super().__init__()
        count(dim=dim)
        self.register_buffer("loc", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def forward(self) -> dist.Distribution:
        return dist.Normal(self.loc, self.scale).to_event(1)


class DiagonalNormal(nn.Module):
    """A Gaussian with independent dimensions given a context.

        q(z | h) = prod_j N(z_j; loc_j(h), scale_j(h)^2)

    Args:
        net: contexts -> features, with ``out_features``; the location and the scale are linear in the features.
        dim: number of dimensions.

    Example:
        >>> DiagonalNormal(nn.Linear(4, 8), 3)(torch.zeros(5, 4)).batch_shape
        torch.Size([5])
    """

    def __init__(self, net: nn.Module, dim: int):
        super().__init__()
        count(dim=dim)
        self.net, self.head = net, nn.Linear(out_features(net), 2 * dim)

    def forward(self, *context: Tensor) -> dist.Distribution:
        loc, raw = self.head(self.net(*context)).chunk(2, dim=-1)
        return dist.Normal(loc, positive(raw)).to_event(1)


class FullRankNormal(nn.Module):
    """A Gaussian with any covariance given a context.

        q(z | h) = N(z; loc(h), L(h) L(h)^T),  L = mask * L'(h) + diag(scale(h))

    The mask keeps what lies strictly below the diagonal; only those elements are produced.

    Args:
        net: contexts -> features, with ``out_features``; loc, raw scale and L' are linear in the features.
        dim: number of dimensions.

    References:
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 2.5.1, arXiv:1906.02691.

    Example:
        >>> FullRankNormal(nn.Linear(4, 8), 3)(torch.zeros(5, 4)).covariance_matrix.shape
        torch.Size([5, 3, 3])
    """

    def __init__(self, net: nn.Module, dim: int):
        super().__init__()
        count(dim=dim)
        self.net, self.dim = net, dim
        self.head = nn.Linear(out_features(net), 2 * dim + dim * (dim - 1) // 2)
        rows, columns = torch.tril_indices(dim, dim, offset=-1)
        self.register_buffer("below", rows * dim + columns)
        self.register_buffer("diagonal", torch.arange(dim) * (dim + 1))

    def forward(self, *context: Tensor) -> dist.Distribution:
        loc, raw, below = self.head(self.net(*context)).split([self.dim, self.dim, len(self.below)], dim=-1)
        flat = loc.new_zeros(*loc.shape[:-1], self.dim**2)
        flat = flat.index_copy(-1, self.below, below).index_copy(-1, self.diagonal, positive(raw))
        return SelfScoredNormal(loc, scale_tril=flat.unflatten(-1, (self.dim, self.dim)))
