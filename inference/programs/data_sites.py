"""What a site is: a datum under its likelihood, a factor, or a value that was only written down; and where it lies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro.distributions import Delta, MaskedDistribution, Unit

from dlvm.distributions.supports import inner


def is_deterministic(site: dict) -> bool:
    """Whether a site keeps a value that follows from others: by ``pyro.deterministic``, or after a reparametrisation.

    It has no density, and counts nothing: no plate, no observed number, no datum.
    """
    if site["infer"].get("_deterministic"):
        return True
    fn = site["fn"]
    silent = isinstance(fn, MaskedDistribution) and fn._mask is False
    observed = site["is_observed"] or site["infer"].get("was_observed", False)
    return observed and silent and isinstance(inner(fn), Delta)


def is_factor(site: dict) -> bool:
    """Whether an observed site has a density and no data: ``pyro.factor``, or a Delta held against its own value.

    Inside the plates of the data it is part of each datum's weight; outside, see ``beside``.
    """
    return site["is_observed"] and isinstance(inner(site["fn"]), Unit | Delta)


def data_of(sites: list[dict]) -> list[dict]:
    """The observed sites that are data: those with a likelihood; where no site has one, the factors in its place.

    Example:
        >>> import pyro.distributions as dist, torch
        >>> def site(fn, observed=True):
        ...     return {"is_observed": observed, "fn": fn}
        >>> x, tilt, z = site(dist.Normal(0.0, 1.0)), site(Unit(torch.zeros(()))), site(dist.Normal(0.0, 1.0), False)
        >>> data_of([z, tilt, x]) == [x], data_of([z, tilt]) == [tilt]
        (True, True)
    """
    observed = [site for site in sites if site["is_observed"]]
    return [site for site in observed if not is_factor(site)] or observed


def is_continuous(site: Mapping[str, Any]) -> bool:
    """Whether a site's distribution is a density; so is one that states no support.

    Example:
        >>> import pyro.distributions as dist
        >>> is_continuous({"fn": dist.Normal(0.0, 1.0)}), is_continuous({"fn": dist.Poisson(1.0)})
        (True, False)
    """
    try:
        support = site["fn"].support
    except (NotImplementedError, AttributeError):
        return True
    return support is None or not support.is_discrete


def batch_shape(site: Mapping[str, Any]) -> torch.Size:
    """That of a site's log-density: what the shapes of its distribution and of its value make together."""
    fn = site["fn"]
    value = site["value"].shape
    return torch.broadcast_shapes(fn.batch_shape, value[: len(value) - len(fn.event_shape)])


def names_around(site: Mapping[str, Any]) -> set[str]:
    """Names of the plates around a site, those that are run through one by one included."""
    return {frame.name for frame in site["cond_indep_stack"]}


def turn(site: dict, loops: frozenset[str]) -> tuple[int, ...]:
    """Which turn of these loops a site belongs to."""
    return tuple(f.counter for f in site["cond_indep_stack"] if not f.vectorized and f.name in loops)
