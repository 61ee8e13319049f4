"""Latent sites on the sphere: directions in three dimensions."""

from __future__ import annotations

import pyro.distributions as dist
from pyro.distributions import constraints
from torch import Tensor, nn

from distributions import VonMisesFisherDirection
from guides.latents import Latent


class Direction:
    """The head of a site of unit vectors in three dimensions: von Mises-Fisher.

    No vector of free numbers maps onto the sphere one to one, so that a family over vectors does not fit there.

    Args:
        latent: shape and support of the site; shape (3,).
    """

    def __init__(self, latent: Latent):
        self.size = latent.shape[0]

    def head(self, net: nn.Module, dim: int) -> nn.Module:
        """The family of the site."""
        return VonMisesFisherDirection(net, dim)

    def constrain(self, q: dist.Distribution) -> dist.Distribution:
        """q itself: the head makes distributions over directions."""
        return q

    def flatten(self, value: Tensor, q: dist.Distribution | None = None) -> Tensor:
        """Directions themselves, shape (*batch, 3)."""
        return value


def is_direction(support: constraints.Constraint) -> bool:
    """Whether a support is a sphere, or several."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.sphere
