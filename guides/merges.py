"""Two ways to make one Gaussian of what the encoder says of a layer and what the model expects of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from distributions.self_scored import SelfScoredNormal
from guides.supports import Reshaped


def merged(merge: str, q: dist.Distribution, name: str, prior: dist.Distribution, site: Reshaped) -> dist.Distribution:
    """The guide's distribution at a site.

    Returns:
        distribution over events of the site; its batch shape is that of ``q`` and ``prior`` broadcast.

    Args:
        merge: a key of ``MERGES``.
        q: the encoder's Gaussian over vectors of ``site.size`` numbers.
        name: of the site.
        prior: the model's distribution over its events.
        site: between vectors and events.

    Raises:
        ValueError: ``prior`` is no diagonal Gaussian, or ``q`` neither diagonal nor full-rank.
    """
    q = MERGES[merge].function(q, *_flat(name, prior))
    if isinstance(q, dist.MultivariateNormal):
        return site.constrain(q)
    loc, scale = (value.reshape(*q.batch_shape[:-1], *prior.event_shape) for value in (q.loc, q.scale))
    return dist.Normal(loc, scale).to_event(prior.event_dim)


def _flat(name: str, prior: dist.Distribution) -> tuple[Tensor, Tensor]:
    """Location and scale of a diagonal Gaussian as vectors, shape (*batch, size)."""
    base = prior
    while isinstance(base, dist.Independent):
        base = base.base_dist
    if not isinstance(base, dist.Normal):
        raise ValueError(
            f"latent site {name!r} is {type(base).__name__} in the model; a ladder merges with a diagonal Gaussian: "
            "write dist.Normal(loc, scale).to_event(1) there, or use Amortized(..., order='top_down')"
        )
    size = math.prod(prior.event_shape)
    return tuple(value.reshape(*prior.batch_shape, size) for value in (base.loc, base.scale))


def _precision(q: dist.Distribution, loc: Tensor, scale: Tensor) -> dist.Distribution:
    """The normalised product of q and N(loc, scale^2)."""
    if isinstance(q, dist.MultivariateNormal):
        found = q.precision_matrix
        upper = torch.linalg.cholesky((found + scale.pow(-2).diag_embed()).flip(-2, -1)).flip(-2, -1)
        identity = torch.eye(scale.shape[-1], dtype=upper.dtype, device=upper.device)
        tril = torch.linalg.solve_triangular(upper.mT, identity, upper=False)
        pull = tril @ (tril.mT @ (found @ (q.loc - loc).unsqueeze(-1)))
        return SelfScoredNormal(loc + pull.squeeze(-1), scale_tril=tril)
    base = _diagonal(q)
    share = scale.square() / (scale.square() + base.scale.square())
    return dist.Normal(torch.lerp(*torch.broadcast_tensors(loc, base.loc, share)), base.scale * share.sqrt())


def _residual(q: dist.Distribution, loc: Tensor, scale: Tensor) -> dist.Distribution:
    """q moved by loc and stretched by scale about its own mean."""
    if isinstance(q, dist.MultivariateNormal):
        return SelfScoredNormal(loc + q.loc, scale_tril=scale.unsqueeze(-1) * q.scale_tril)
    base = _diagonal(q)
    return dist.Normal(loc + base.loc, scale * base.scale)


def _diagonal(q: dist.Distribution) -> dist.Normal:
    base = q.base_dist if isinstance(q, dist.Independent) else q
    if not isinstance(base, dist.Normal):
        raise ValueError(
            f"family makes {type(q).__name__}, which a ladder cannot merge; use DiagonalNormal or FullRankNormal"
        )
    return base


class Merge(NamedTuple):
    """A way to merge, and the order in which the encoder's Gaussians see the draws before them."""

    function: Callable[[dist.Distribution, Tensor, Tensor], dist.Distribution]
    order: str


MERGES = {"precision": Merge(_precision, "independent"), "residual": Merge(_residual, "top_down")}
