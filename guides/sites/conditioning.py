"""A program's arguments that are values of its latent sites, and those that are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from dlvm.guides.sites.latents import Latent


class Arguments(NamedTuple):
    """A call's arguments, parted: values given for latent sites, and all others as they came."""

    given: dict[str, Tensor]
    args: tuple
    kwargs: dict


def parted(latents: Mapping[str, Latent], args: tuple, kwargs: dict) -> Arguments:
    """Parts a call's arguments.

    Returns:
        ``given`` {site: value} of the arguments named after a site that are not None, ``args`` and ``kwargs`` without
        any of the arguments named after a site.

    Args:
        latents: {site: Latent}; an argument by position is a site's where it is at the site's ``position``.
        args, kwargs: of the call.

    Raises:
        TypeError: what is given for a site is no tensor.

    Example:
        >>> import torch
        >>> spec = {"y": Latent(torch.Size([]), position=1)}
        >>> parted(spec, ("x", torch.ones(2), "c"), {})
        Arguments(given={'y': tensor([1., 1.])}, args=('x', 'c'), kwargs={})
    """
    names = {latent.position: name for name, latent in latents.items() if latent.position is not None}
    found = {names[i]: value for i, value in enumerate(args) if i in names}
    found |= {name: value for name, value in kwargs.items() if name in latents}
    for name, value in found.items():
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(
                f"argument {name!r} is named after a latent site and must be the site's values, a tensor, or None, got "
                f"{type(value).__name__}; rename the argument if it is something else"
            )
    return Arguments(
        {name: value for name, value in found.items() if value is not None},
        tuple(value for i, value in enumerate(args) if i not in names),
        {name: value for name, value in kwargs.items() if name not in latents},
    )


def first(args: tuple, kwargs: Mapping[str, Any]) -> object:
    """The first argument of a call, by position or by name, which is the data; None where there is none."""
    return next(iter((*args, *kwargs.values())), None)


def check_given(latents: Mapping[str, Latent], given: Mapping[str, Tensor]) -> None:
    """Raises a ValueError where a given value has not one event of its site per datum."""
    for name, value in given.items():
        event = tuple(latents[name].shape)
        if value.dim() != 1 + len(event) or tuple(value.shape[1:]) != event:
            wanted = ", ".join(["batch", *map(str, event)]) + ("," if not event else "")
            raise ValueError(
                f"argument {name!r} has shape {tuple(value.shape)}; expected ({wanted}), one value of the latent site "
                f"{name!r} per datum"
            )


def check_rows(name: str, value: Tensor | None, h: Tensor) -> None:
    """Raises a ValueError where there is not one given value per datum."""
    if value is not None and len(value) != len(h):
        raise ValueError(f"argument {name!r} has {len(value)} rows for {len(h)} data; pass one value per datum")
