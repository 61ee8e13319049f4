"""Between a flat unconstrained vector, where families live, and a site's own shape and support."""

from __future__ import annotations

from collections.abc import Mapping

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import biject_to, transforms

from distributions.supports import is_fixed, is_real
from guides.latents import Latent, Plate


class Reshaped:
    """Maps distributions over flat vectors to distributions over a latent site's events, and values back.

    Args:
        latent: shape and support of the site.
    """

    def __init__(self, latent: Latent):
        event_shape = torch.Size(latent.shape)
        bijection = biject_to(latent.support)
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

    def flatten(self, value: Tensor) -> Tensor:
        """Events, shape (*batch, *shape) -> unconstrained vectors, shape (*batch, size)."""
        for part in reversed(self.parts):
            value = part.inv(value)
        return value


def check_latents(latents: Mapping[str, Latent]) -> Plate:
    """The one plate in which all sites lie.

    Raises:
        ValueError: a site is discrete, global, or in several plates, or sites differ in their plate.
    """
    if not latents:
        raise ValueError("latents is empty: a guide needs at least one latent site")
    for name, latent in latents.items():
        if latent.support.is_discrete:
            raise ValueError(
                f"latent site {name!r} is discrete ({latent.support}); amortised guides here are continuous: sum "
                "the site out "
                "with TraceEnum_ELBO, or write its guide by hand"
            )
        if not is_fixed(latent.support, len(latent.shape)):
            raise ValueError(
                f"latent site {name!r} has a support with bounds that depend on other values; reparametrise the "
                "site, as "
                "a * u with u ~ Uniform(0, 1)"
            )
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
        raise ValueError(f"latent sites lie in different plates {sorted(plates)}; expected one plate over data for all")
    plate = plates.pop()
    if plate.dim != -1:
        raise ValueError(f"plate {plate.name!r} has dim={plate.dim}; expected dim=-1, the last batch dimension")
    return plate
