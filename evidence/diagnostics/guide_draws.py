"""Draws from a guide for every datum of a data set, handed over a few data at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pyro
import torch
from pyro import poutine
from torch import Tensor

from dlvm.inference.particles.particles import Particles
from dlvm.inference.particles.weights import check_particles, weigh
from dlvm.inference.programs.chunks import Tick, split, walk, width_of
from dlvm.inference.programs.data_checks import check_observed
from dlvm.inference.programs.parameters import own
from dlvm.inference.programs.randomness import untouched
from dlvm.nets.arguments import count

NUMBERS_AT_ONCE = 800_000


@torch.no_grad()
def draw_each(
    model: Callable,
    guide: Callable,
    data: Tensor | Iterable,
    num_particles: int,
    take: Callable[[Particles, tuple], None],
    rows: int | None = None,
    seed: int = 0,
    progress: bool = False,
    text: str = "drawing",
) -> bool:
    """Draws and scores particles of every datum.

    Modules are in evaluation mode meanwhile, and the process's random state stays as it was.

    Returns:
        whether all data were done: False after Ctrl-C, which goes on where none was.

    Args:
        model, guide: Pyro programs of the same signature, with one plate over data.
        data: a tensor x, or an iterable of batches (tuples of arguments), moved to the device of the modules.
        num_particles: K per datum.
        take: called with what was found of some data, in their order, and with the arguments that hold these data.
        rows: how many data at once; picked from the width of x unless told, for bounded memory.
        seed: of the draws.
        progress: show a bar with the time left.
        text: what the bar says.

    Raises:
        ValueError: ``num_particles`` or ``rows`` is below 1, there are no data, data lie outside the likelihood's
            support, the pair cannot run particles in parallel or gives more or less than one weight per datum, or a
            density is NaN.
    """
    count(num_particles=num_particles, rows=1 if rows is None else rows)
    checked = False

    def rows_of(args: tuple) -> int:
        nonlocal checked
        if num_particles > 1 and not checked:
            first = next(split(args, 1))
            with untouched():  # the draws to come do not depend on checks
                check_observed(poutine.trace(own(model)).get_trace(*first))
            check_particles(model, guide, *first)
        checked = True
        return rows or max(1, NUMBERS_AT_ONCE // width_of(args) // num_particles)

    def work(part: tuple, _: Tick) -> None:
        check_observed(poutine.trace(own(model)).get_trace(*part))
        take(_weighed(model, guide, part, num_particles), part)

    return walk(data, (model, guide), rows_of, work, seed, progress, text).complete


def _weighed(model: Callable, guide: Callable, args: tuple, num_particles: int) -> Particles:
    with pyro.validation_enabled(False):  # the data were held against the likelihood just now
        found = weigh(own(model), own(guide), args, {}, num_particles)
    if found.log_likelihood.shape[1] != len(args[0]):
        raise ValueError(
            f"the pair gives {found.log_likelihood.shape[1]} weights for {len(args[0])} data; put every site into one "
            "plate over data, and leave the event dimensions of a datum to to_event"
        )
    if (bad := found.log_w.isnan().any(0)).any():
        raise ValueError(
            f"{int(bad.sum())} data have NaN weights: the model's or the guide's parameters or the data are not "
            "finite; look at the run that produced them"
        )
    return found
