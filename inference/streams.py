"""Batches as the arguments of programs: moved, counted, and held against the likelihood."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn
from torch.distributions import constraints

from inference.observed import check_values
from inference.ownership import own
from inference.plates import DataCount
from inference.randomness import untouched


def arguments(batch) -> tuple:
    """The arguments that a batch stands for: a tuple or list of them, or a single tensor."""
    return tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)


def to_device(device: str | torch.device | None, *programs: Callable) -> Callable[[tuple], tuple]:
    """Moves the programs that are modules; returns what moves a batch's arguments."""
    if device is None:
        return lambda args: args
    for program in programs:
        if isinstance(program, nn.Module):
            program.to(device)
    return lambda args: tuple(a.to(device, non_blocking=True) if isinstance(a, Tensor) else a for a in args)


def to_device_of(*programs: Callable) -> Callable[[tuple], tuple]:
    """Returns what moves a batch's arguments to where the programs' parameters are."""
    parameters = (p for program in programs if isinstance(program, nn.Module) for p in program.parameters())
    first = next(parameters, None)
    return to_device(None if first is None else first.device)


def check_data(model: Callable, first: tuple, data: Iterable, move: Callable[[tuple], tuple], count: DataCount) -> None:
    """Holds every batch against the supports of the sites that observe it, before any training, and counts its data.

    Args:
        model: a Pyro program.
        first: the arguments of one batch, which find out what observes what.
        data: batches; one pass is made.
        move: what moves a batch's arguments to the model's device.
        count: what remembers how many data a batch stands for.

    Raises:
        ValueError: a batch has the wrong width, or holds values that the likelihood cannot have produced.
    """
    with untouched(), torch.no_grad():
        trace = prune_subsample_sites(poutine.trace(own(model)).get_trace(*first))
    observed = [site for site in trace.nodes.values() if site["type"] == "sample" and site["is_observed"]]
    watched = [
        (position, site["name"], site["fn"].support, tuple(site["fn"].event_shape))
        for site in observed
        for position, value in enumerate(first)
        if value is site["value"] and _is_fixed(site["fn"].support)
    ]
    for batch in data:
        args = move(arguments(batch))
        for position, name, support, event_shape in watched:
            check_values(name, args[position], support, event_shape)
        count(args)


def _is_fixed(support: constraints.Constraint) -> bool:
    """Whether a support is the same for every datum, so that it can judge other batches than its own."""
    parts = vars(support).values()
    inner = all(_is_fixed(part) for part in parts if isinstance(part, constraints.Constraint))
    return inner and not any(isinstance(part, Tensor) and part.dim() for part in parts)
