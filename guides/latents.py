"""What a guide has to know of a model: its latent sites, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch.distributions import constraints

from distributions.supports import collapsed


class Plate(NamedTuple):
    """A plate around a site: its name, its dimension, and its full size where it is subsampled (else None)."""

    name: str = "data"
    dim: int = -1
    size: int | None = None


class Latent(NamedTuple):
    """A latent site: shape of one event, support, and the plates around it."""

    shape: torch.Size
    support: constraints.Constraint = constraints.real_vector
    plates: tuple[Plate, ...] = (Plate(),)


def latents(model: Callable, *args, **kwargs) -> dict[str, Latent]:
    """The latent sites of a model, in the order in which it generates them.

    The model runs once, on ``args``, with its parameters and the random state left as they were.

    Returns:
        {site: Latent(shape, support, plates)}; a dict written by hand serves guides as well.

    Args:
        model: a Pyro program.
        *args, **kwargs: what it is called with, a small batch of data for example.

    Raises:
        ValueError: the model has no latent site when called so.

    Example:
        >>> from models import PPCA
        >>> latents(PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3))["z"].shape
        torch.Size([2])
    """
    frozen = [p for p in getattr(model, "parameters", list)() if not p.requires_grad]
    with torch.random.fork_rng(), torch.no_grad(), pyro.get_param_store().scope():
        trace = prune_subsample_sites(poutine.trace(model).get_trace(*args, **kwargs))
    for parameter in frozen:  # Pyro's store lets every parameter that it meets require a gradient
        parameter.requires_grad_(False)
    sites = {
        name: Latent(shape := site["fn"].event_shape, collapsed(site["fn"].support, len(shape)), _plates(site))
        for name, site in trace.iter_stochastic_nodes()
        if not site["infer"].get("is_auxiliary")
    }
    if not sites:
        raise ValueError(
            "model has no latent site when called with these arguments; "
            "a guide needs a pyro.sample statement without obs"
        )
    return sites


def _plates(site: dict) -> tuple[Plate, ...]:
    return tuple(
        Plate(frame.name, frame.dim, frame.full_size if frame.full_size != frame.size else None)
        for frame in site["cond_indep_stack"]
    )
