"""Distributions over events as products of one factor per unit, where they are that."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, OneHotCategorical

from inference.analytic import closed_form


class Factors:
    """The distribution of one unit, and how many dimensions of its batch make up the event.

    A unit is a number, or a one-hot vector.
    """

    def __init__(self, unit: Distribution, dims: int):
        self.unit, self.dims = unit, dims

    def log_prob(self, value: Tensor) -> Tensor:
        """Shape (*batch, units), nats."""
        return self._flat(self.unit.log_prob(value))

    def kl(self, prior: Factors) -> Tensor | None:
        """KL of each unit, shape (*batch, units), nats; None where no formula is known."""
        found = closed_form(self.unit, prior.unit) if self.dims == prior.dims else None
        return None if found is None else self._flat(found)

    def _flat(self, each: Tensor) -> Tensor:
        return each.flatten(-self.dims) if self.dims else each.unsqueeze(-1)


def factors(fn: Distribution | None) -> Factors | None:
    """The factors of a distribution; None where its dimensions depend on one another, or may."""
    dims = 0
    while isinstance(fn, Independent):
        fn, dims = fn.base_dist, dims + fn.reinterpreted_batch_ndims
    single = fn is not None and (fn.event_shape == torch.Size() or isinstance(fn, OneHotCategorical))
    return Factors(fn, dims) if single else None
