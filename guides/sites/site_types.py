"""Between flat vectors, which nets take and return, and a latent site's own shape and support."""

from __future__ import annotations

from typing import cast

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import transforms

from dlvm.distributions import Binary, Categorical, Logits, OneHotCategorical, VonMisesFisherDirection
from dlvm.distributions.supports import is_real
from dlvm.guides.sites.bijections import bijection_to
from dlvm.guides.sites.latents import Latent

Head = type[Binary] | type[Categorical] | type[OneHotCategorical]


class Reshaped:
    """Maps distributions over flat vectors to distributions over a latent site's events, and values back.

    Args:
        latent: shape and support of the site; the support of a part of the event stands for that of all.
    """

    head = None  # any family will do

    def __init__(self, latent: Latent):
        event_shape = torch.Size(latent.shape)
        bijection = bijection_to(latent.support)
        if (missing := len(event_shape) - bijection.codomain.event_dim) > 0:
            bijection = transforms.IndependentTransform(bijection, missing)
        shape = torch.Size(bijection.inverse_shape(event_shape))
        self.size = shape.numel()
        self.parts: list[transforms.Transform] = []
        if shape != (self.size,):
            self.parts.append(transforms.ReshapeTransform(torch.Size([self.size]), shape))
        if not is_real(latent.support):
            self.parts.append(bijection)

    def constrain(self, q: TorchDistributionMixin) -> TorchDistributionMixin:
        """q over vectors of ``size`` numbers -> the distribution over events."""
        if not self.parts:
            return q
        return dist.TransformedDistribution(q, [part.with_cache(1) for part in self.parts])

    def flatten(self, value: Tensor, q: TorchDistributionMixin | None = None) -> Tensor:
        """Events, shape (*batch, *shape) -> unconstrained vectors, shape (*batch, size).

        Where ``q`` is what ``constrain`` returned and drew the value, it is the very vector that was drawn: at the edge
        of a support, an inverse would have lost it.
        """
        own = q.transforms if self.parts and isinstance(q, dist.TransformedDistribution) else self.parts
        for part in reversed(own):
            value = part.inv(value)
        return value

    def moved(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors, shape (*batch, size) -> events, and log |devent / dvector|, shape (*batch)."""
        value, volume = flat, flat.new_zeros(flat.shape[:-1])
        for part in self.parts:
            after = part(value)
            volume = volume + part.log_abs_det_jacobian(value, after)
            value = after
        return value, volume


class Discrete:
    """The head of a discrete latent site, and its values as vectors for the nets of later sites.

    Binary variables get a Bernoulli each, one-hot vectors and classes 0..C-1 a categorical distribution; binary and
    one-hot values are vectors already, a class becomes a one-hot vector.

    Args:
        latent: shape and support of the site, one that ``head_type`` knows.
    """

    def __init__(self, latent: Latent):
        self.make, self.event_dim = cast(Head, head_type(latent)), len(latent.shape)
        self.classes = _classes(_one(latent.support))
        self.shape = (*latent.shape, self.classes) if self.classes else tuple(latent.shape)
        self.size = torch.Size(self.shape).numel()

    def head(self, net: nn.Module, dim: int) -> nn.Module:
        """The family of the site: logits of its shape, ``dim`` numbers in all, linear in the net's features."""
        return self.make(Logits(net, *self.shape), self.event_dim)

    def constrain(self, q: TorchDistributionMixin) -> TorchDistributionMixin:
        """q itself: the head makes distributions over events."""
        return q

    def flatten(self, value: Tensor, q: TorchDistributionMixin | None = None) -> Tensor:
        """Events, shape (*batch, *shape) -> vectors of zeros and ones, shape (*batch, size)."""
        batch = value.shape[: value.dim() - self.event_dim]
        if self.classes:
            value = value.unsqueeze(-1) == torch.arange(self.classes, device=value.device)
        return value.reshape(*batch, self.size)


class Direction:
    """The head of a site of unit vectors: von Mises-Fisher.

    No vector of free numbers maps onto the sphere one to one, so that a family over vectors does not fit there.

    Args:
        latent: shape and support of the site; shape (d,), d at least 2.
    """

    def __init__(self, latent: Latent):
        self.size = latent.shape[0]

    def head(self, net: nn.Module, dim: int) -> nn.Module:
        """The family of the site."""
        return VonMisesFisherDirection(net, dim)

    def constrain(self, q: TorchDistributionMixin) -> TorchDistributionMixin:
        """q itself: the head makes distributions over directions."""
        return q

    def flatten(self, value: Tensor, q: TorchDistributionMixin | None = None) -> Tensor:
        """Directions themselves, shape (*batch, d)."""
        return value


Site = Reshaped | Discrete | Direction


def site_of(latent: Latent) -> Site:
    """What brings a latent site to vectors and back, and the family that it needs, its ``head``, if not any will do."""
    if is_direction(latent.support):
        return Direction(latent)
    return Discrete(latent) if latent.support.is_discrete else Reshaped(latent)


def head_type(latent: Latent) -> Head | None:
    """The module that makes q at a discrete site; None where there is none, for counts without a bound for example."""
    support = _one(latent.support)
    if isinstance(support, type(constraints.boolean)):
        return Binary
    if isinstance(support, type(constraints.one_hot)):
        return OneHotCategorical
    return Categorical if _classes(support) else None


def _one(support: constraints.Constraint) -> constraints.Constraint:
    """The support of one of the independent variables of an event."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def _classes(support: constraints.Constraint) -> int:
    """C where the support is the integers 0..C-1, the same for every variable; else 0."""
    if not isinstance(support, constraints.integer_interval):
        return 0
    lower, upper = torch.as_tensor(support.lower_bound), torch.as_tensor(support.upper_bound)
    return int(upper.max()) + 1 if (lower == 0).all() and (upper == upper.max()).all() else 0


def is_direction(support: constraints.Constraint) -> bool:
    """Whether a support is a sphere, or several."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.sphere
