"""Gaussian distributions: fixed, diagonal, full-rank; and their limit, point masses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from dlvm.distributions.scale import limited, positive
from dlvm.nets import out_features
from dlvm.nets.arguments import count, whole

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class StandardNormal(nn.Module):
    """The fixed Gaussian N(0, I), which moves with the module from device to device.

    Args:
        dim: number of dimensions.

    Example:
        >>> StandardNormal(3)().event_shape
        torch.Size([3])
    """

    loc: Tensor
    scale: Tensor

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

    below: Tensor
    diagonal: Tensor

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


class SelfScoredNormal(dist.MultivariateNormal):
    """N(loc, L L^T) in which log q of the last draw needs no triangular solve.

        z = loc + L eps,   log q(z) = sum_i [ log N(eps_i; 0, 1) - log L_ii ]

    The solve costs more than the draw, and in single precision its error grows exponentially with the dimension.
    Any other value is scored as usual: for the gradient of log q with respect to z itself, score ``z.clone()``.

    Example:
        >>> q = SelfScoredNormal(torch.zeros(2), scale_tril=torch.eye(2))
        >>> z = q.rsample()
        >>> bool(torch.isclose(q.log_prob(z), q.log_prob(z.clone())))
        True
    """

    _draw: tuple[Tensor, Tensor] | None = None

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        shape = self._extended_shape(torch.Size(sample_shape))
        eps = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        z = self.loc + (self._unbroadcasted_scale_tril @ eps.unsqueeze(-1)).squeeze(-1)
        self._draw = z, eps
        return z

    def expand(self, batch_shape: Sequence[int], _instance: SelfScoredNormal | None = None) -> SelfScoredNormal:
        return super().expand(torch.Size(batch_shape), self._get_checked_instance(SelfScoredNormal, _instance))

    def log_prob(self, value: Tensor) -> Tensor:
        # A value drawn by sample() carries no graph: only the usual formula has the parameters' whole gradient.
        draw = self._draw
        if draw is None or draw[0] is not value or (torch.is_grad_enabled() and not value.requires_grad):
            return super().log_prob(value)
        log_diagonal = self._unbroadcasted_scale_tril.diagonal(dim1=-2, dim2=-1).log()
        return -(0.5 * draw[1].square() + HALF_LOG_TWO_PI + log_diagonal).sum(-1)


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


class AtPoint(dist.Delta):
    """All probability at one value, which stands in for a density that there is not.

    Its log-density there is 0 by convention. An objective that holds it against the density of a prior is no bound on
    log p(x), so that objectives of ``inference`` refuse it but for those that are none, as ``Reconstruction``.
    """


class PointMass(nn.Module):
    """A point mass given a context.

        q(z | h) = delta(z - loc(h)),   loc linear in net(h)

    Draws carry the gradient of ``loc``. There is no entropy, and no KL with a density.

    Args:
        net: contexts -> features, with ``out_features``.
        dim: number of dimensions.

    Raises:
        ValueError: ``dim`` is below 1.
        TypeError: ``dim`` is no integer, or ``net`` has no ``out_features``.

    Example:
        >>> PointMass(nn.Linear(4, 8), 3)(torch.zeros(5, 4)).sample().shape
        torch.Size([5, 3])
    """

    def __init__(self, net: nn.Module, dim: int):
        super().__init__()
        count(dim=dim)
        self.net, self.head = net, nn.Linear(out_features(net), dim)

    def forward(self, *context: Tensor) -> dist.Distribution:
        return AtPoint(self.head(self.net(*context)), event_dim=1)
