"""What a latent spec must be, found by a trace or written by hand, and what a guide asks of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.distributions import constraints, transforms

from dlvm.distributions.supports import is_fixed
from dlvm.guides.sites.bijections import bijection_to
from dlvm.guides.sites.latents import Latent, Plate
from dlvm.guides.sites.masks import Mask
from dlvm.guides.sites.site_types import head_type, is_direction
from dlvm.nets.arguments import count, whole


def check_spec(latents: Mapping[str, Latent]) -> None:
    """Refuses what is no {site: Latent}, and shapes, supports, plates and positions that no site has.

    Raises:
        TypeError: a part is of another type.
        ValueError: a number is out of range.
    """
    if not isinstance(latents, Mapping):
        raise TypeError(
            f"latents must be a dict {{site: Latent}}, got {type(latents).__name__}; write latents(model, x)"
        )
    for name, latent in latents.items():
        if not isinstance(name, str) or not isinstance(latent, Latent):
            raise TypeError(
                f"latents must be a dict {{site: Latent}}, got {name!r}: {type(latent).__name__}; write "
                '{"z": Latent(torch.Size([2]))}'
            )
        _check_latent(f"latents[{name!r}]", latent)


def _check_latent(which: str, latent: Latent) -> None:
    if not isinstance(latent.shape, Sequence) or isinstance(latent.shape, str):
        raise TypeError(f"{which}.shape must be a torch.Size, got {latent.shape!r}; write torch.Size([2])")
    count(**{f"{which}.shape[{i}]": size for i, size in enumerate(latent.shape)})
    if not isinstance(latent.support, constraints.Constraint) or constraints.is_dependent(latent.support):
        raise TypeError(
            f"{which}.support must be a constraint, got {latent.support!r}; write constraints.real_vector, or take it "
            "from a distribution that was made"
        )
    if not isinstance(latent.plates, tuple | list) or not all(isinstance(plate, Plate) for plate in latent.plates):
        raise TypeError(f"{which}.plates must be a tuple of Plate, got {latent.plates!r}; write (Plate(),)")
    if latent.mask is not None and not isinstance(latent.mask, Mask):
        raise TypeError(f"{which}.mask must be None, or as latents(...) finds it, got {latent.mask!r:.60}; drop it")
    if latent.position is not None:
        whole(**{f"{which}.position": latent.position})
        if latent.position < 0:
            raise ValueError(f"{which}.position must be at least 0, got {latent.position}; or None, for none")
    for i, plate in enumerate(latent.plates):
        _check_plate(f"{which}.plates[{i}]", plate)


def _check_plate(which: str, plate: Plate) -> None:
    if not isinstance(plate.name, str) or not plate.name:
        raise TypeError(f"{which}.name must be a string, got {plate.name!r}; write the name that the model uses")
    if plate.dim is not None:
        whole(**{f"{which}.dim": plate.dim})
    if plate.size is not None:
        count(**{f"{which}.size": plate.size})


def check_latents(latents: Mapping[str, Latent]) -> Plate:
    """The one plate in which all sites lie.

    Raises:
        ValueError: a site is discrete without a head, several directions at once, of another support to
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
                'infer it from; draw it inside pyro.plate("data", len(x)) if each datum has its own, and if all share '
                "one, make it a parameter or leave it to WithGlobals"
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
            f"latent sites lie in different plates {sorted(plates, key=str)}; expected one plate over data for all: "
            "put the sites of a datum into one; latents in plates that cross at the data are of no datum alone, and "
            "need a guide by hand"
        )
    plate = plates.pop()
    if plate.dim != -1:
        remedy = (
            f"it is run through one by one; write with pyro.plate({plate.name!r}, len(x)) around all data at once"
            if plate.dim is None
            else "declare the other dimensions with to_event"
        )
        raise ValueError(
            f"plate {plate.name!r} has dim={plate.dim}; expected dim=-1, the last batch dimension: {remedy}"
        )
    if plate.name in latents:
        raise ValueError(f"a latent site is named {plate.name!r}, as the plate around it is; rename one in the model")
    return plate


def _check_continuous(name: str, latent: Latent) -> None:
    """Raises a ValueError where there is neither a head for a site nor a map to its support."""
    if is_direction(latent.support):
        if len(latent.shape) != 1 or latent.shape[0] < 2:
            raise ValueError(
                f"latent site {name!r} has shape {tuple(latent.shape)} on a sphere; amortised guides have a head for "
                "one direction of d numbers, shape (d,) with d of at least 2: draw several directions at sites of "
                "their own"
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
