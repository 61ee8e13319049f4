"""The distributions of a site at particles that were drawn one after the other, as one."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints, kl_divergence, register_kl

Shape = torch.Size | list[int] | tuple[int, ...]


def joined(fns: Sequence[dist.TorchDistribution], dims: int) -> dist.TorchDistribution:
    """One distribution with a batch dimension for each particle on the left of ``dims`` others.

    Independent dimensions stay so.

    Args:
        fns: one for each particle, of one shape.
        dims: how many batch dimensions each is to have; ones are put on the left.
    """
    first = fns[0]
    if isinstance(first, torch.distributions.Independent):
        inner = first.reinterpreted_batch_ndims
        return dist.Independent(joined([fn.base_dist for fn in fns], dims + inner), inner)
    missing = dims - len(first.batch_shape)
    return Each([fn.expand((1,) * missing + fn.batch_shape) for fn in fns] if missing > 0 else fns)


class Each(dist.TorchDistribution):
    """Distributions of one shape, stacked on the left: batch shape (num_particles, *batch).

    Args:
        fns: one for each particle.
    """

    arg_constraints: dict = {}

    def __init__(self, fns: Sequence[dist.TorchDistribution]):
        self.fns = tuple(fns)
        first = self.fns[0]
        super().__init__(torch.Size((len(self.fns), *first.batch_shape)), first.event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]  # torch types it as an attribute, and defines it so too
        return self.fns[0].has_rsample

    @property
    def support(self) -> constraints.Constraint | None:
        return self.fns[0].support

    def expand(self, batch_shape: Shape, _instance: object = None) -> Each:
        number, *rest = batch_shape
        if number != len(self.fns):
            raise ValueError(f"{len(self.fns)} particles cannot be expanded to {number}; keep their number")
        return Each([fn.expand(torch.Size(rest)) for fn in self.fns])

    def rsample(self, sample_shape: Shape = torch.Size()) -> Tensor:  # noqa: B008
        return torch.stack([fn.rsample(sample_shape) for fn in self.fns], len(sample_shape))

    def sample(self, sample_shape: Shape = torch.Size()) -> Tensor:  # noqa: B008
        return torch.stack([fn.sample(sample_shape) for fn in self.fns], len(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        width = len(self.batch_shape) + len(self.event_shape)
        value = value.reshape((1,) * (width - value.dim()) + value.shape)
        place = value.dim() - width
        pieces = value.expand(*value.shape[:place], len(self.fns), *value.shape[place + 1 :]).unbind(place)
        found = [fn.log_prob(piece) for fn, piece in zip(self.fns, pieces, strict=True)]
        return torch.stack(found, -len(self.batch_shape))


@register_kl(Each, Each)
def each_to_each(q: Each, p: Each) -> Tensor:
    """KL of each particle's q from its p, shape (num_particles, *batch), nats."""
    return torch.stack([kl_divergence(*fns) for fns in zip(q.fns, p.fns, strict=True)])
