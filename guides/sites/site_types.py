"""Between flat vectors, which nets take and return, and a latent site's own shape and support."""

from __future__ import annotations

from collections.abc import Mapping

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints, transforms

from distributions import Binary, Categorical, Logits, OneHotCategorical
from distributions.supports import is_fixed, is_real
from guides.bijections import bijection_to
from guides.directions import Direction, is_direction
from guides.latents import Latent, Plate
from guides.spec import check_spec


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
        parts = [] if shape == (self.size,) else [transforms.ReshapeTransform((self.size,), shape)]
        if not is_real(latent.support):
            parts.append(bijection)
        self.parts = parts

    def constrain(self, q: dist.Distribution) -> dist.Distribution:
        """q over vectors of ``size`` numbers -> the distribution over events."""
        if not self.parts:
            return q
        return dist.TransformedDistribution(q, [part.with_cache(1) for part in self.parts])

    def flatten(self, value: Tensor, q: dist.Distribution | None = None) -> Tensor:
        """Events, shape (*batch, *shape) -> unconstrained vectors, shape (*batch, size).

        Where ``q`` is what ``constrain`` returned and drew the value, it is the very vector that was drawn: at the edge
        of a support, an inverse would have lost it.
        """
        for part in reversed(q.transforms if q is not None and self.parts else self.parts):
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
        self.make, self.event_dim = head_type(latent), len(latent.shape)
        self.classes = _classes(_one(latent.support))
        self.shape = (*latent.shape, self.classes) if self.classes else tuple(latent.shape)
        self.size = torch.Size(self.shape).numel()

    def head(self, net: nn.Module, dim: int) -> nn.Module:
        """The family of the site: logits of its shape, ``dim`` numbers in all, linear in the net's features."""
        return self.make(Logits(net, *self.shape), self.event_dim)

    def constrain(self, q: dist.Distribution) -> dist.Distribution:
        """q itself: the head makes distributions over events."""
        return q

    def flatten(self, value: Tensor, q: dist.Distribution | None = None) -> Tensor:
        """Events, shape (*batch, *shape) -> vectors of zeros and ones, shape (*batch, size)."""
        batch = value.shape[: value.dim() - self.event_dim]
        if self.classes:
            value = value.unsqueeze(-1) == torch.arange(self.classes, device=value.device)
        return value.reshape(*batch, self.size)


Site = Reshaped | Discrete | Direction


def site_of(latent: Latent) -> Site:
    """What brings a latent site to vectors and back, and the family that it needs, its ``head``, if not any will do."""
    if is_direction(latent.support):
        return Direction(latent)
    return Discrete(latent) if latent.support.is_discrete else Reshaped(latent)


def head_type(latent: Latent) -> type[nn.Module] | None:
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


def check_latents(latents: Mapping[str, Latent]) -> Plate:
    """The one plate in which all sites lie.

    Raises:
        ValueError: a site is discrete without a head, on a sphere but that of three dimensions, of another support to
            which no map is known, or of a shape that the support has not, global, in several plates, or named as its
            plate is; or sites differ in their plate.
        TypeError: ``latents`` is no {site: Latent}.
    """
    check_spec(latents)
    if not latents:
        raise ValueError("latents is empty: a guide needs at least one latent site")
    for name, latent in latents.items():
        if latent.support.is_discrete and head_type(latent) is None:
            raise ValueError(
                f"latent site {name!r} is discrete with support {latent.support}; amortised guides have heads for "
                "binary and one-hot values and for classes 0..C-1: bound the values and let them start at 0, as "
                "Categorical does, or write the site's guide by hand"
            )
        if not is_fixed(latent.support, len(latent.shape)):
            raise ValueError(
                f"latent site {name!r} has a support with bounds that depend on other values; reparametrise the "
                "site, as "
                "a * u with u ~ Uniform(0, 1)"
            )
        if not latent.support.is_discrete:
            _check_continuous(name, latent)
        if not latent.plates:
            raise ValueError(
                f"latent site {name!r} is global: it lies in no plate over data, so there is no x of its own to "
                "infer it from; "
                "make it a parameter, or move it into the data plate"
            )
        if len(latent.plates) > 1:
            raise ValueError(
                f"latent site {name!r} lies in the plates {[plate.name for plate in latent.plates]}; expected the "
                "data plate "
                "alone: declare its other dimensions with to_event"
            )
    plates = {latent.plates[0] for latent in latents.values()}
    if len(plates) > 1:
        raise ValueError(
            f"latent sites lie in different plates {sorted(plates, key=str)}; expected one plate over data for all"
        )
    plate = plates.pop()
    if plate.dim != -1:
        raise ValueError(f"plate {plate.name!r} has dim={plate.dim}; expected dim=-1, the last batch dimension")
    if plate.name in latents:
        raise ValueError(f"a latent site is named {plate.name!r}, as the plate around it is; rename one in the model")
    return plate


def _check_continuous(name: str, latent: Latent) -> None:
    """Raises a ValueError where there is neither a head for a site nor a map to its support."""
    if is_direction(latent.support):
        if tuple(latent.shape) != (3,):
            raise ValueError(
                f"latent site {name!r} has shape {tuple(latent.shape)} on a sphere; amortised guides have a head for "
                "one direction in three dimensions, shape (3,): let the model draw w ~ Normal(0, 1) of any dimension "
                "and use w / |w|"
            )
        return
    try:
        bijection = bijection_to(latent.support)
    except NotImplementedError:
        raise ValueError(
            f"latent site {name!r} has support {latent.support}, to which no map from real vectors is known; let the "
            "model draw real numbers and transform them itself"
        ) from None
    shape = torch.Size(latent.shape)
    if not _fits(bijection, shape):
        raise ValueError(
            f"latent site {name!r} has shape {tuple(shape)}, which no value of the support {latent.support} has; take "
            "both from the model, latents(model, x)"
        )


def _fits(bijection: transforms.Transform, shape: torch.Size) -> bool:
    """Whether the support has values of this shape, and these have dimensions that are free."""
    try:
        free = bijection.inverse_shape(shape)
        return free.numel() > 0 and bijection.forward_shape(free) == shape
    except (ValueError, RuntimeError):
        return False
