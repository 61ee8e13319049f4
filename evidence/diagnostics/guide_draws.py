"""Draws from a guide for every datum of a data set, handed over a few data at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from dlvm.inference.particles.particles import Particles
from dlvm.inference.particles.row_weights import RowWeights
from dlvm.inference.programs.chunks import Tick, walk
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.rows import width_of
from dlvm.nets.arguments import count

NUMBERS_AT_ONCE = 800_000


@torch.no_grad()
def draw_each(
    pair: Pair,
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
        pair: with one plate over data.
        data: a tensor x, or an iterable of batches (tuples of arguments), moved to the device of the modules.
        num_particles: K per datum.
        take: called with what was found of some data, in their order, and with the arguments that hold these data.
        rows: how many data at once; picked from the width of x unless told, for bounded memory.
        seed: of the draws.
        progress: show a bar with the time left.
        text: what the bar says.

    Raises:
        ValueError: ``num_particles`` or ``rows`` is below 1, there are no data, data lie outside the likelihood's
            support, the pair gives more or less than one weight per datum, or a density is NaN.
    """
    count(num_particles=num_particles, rows=1 if rows is None else rows)
    weigh = RowWeights(pair)

    def rows_of(args: tuple) -> int:
        return rows or max(1, NUMBERS_AT_ONCE // width_of(args, pair) // num_particles)

    def work(part: tuple, _: Tick) -> None:
        take(weigh(part, num_particles), part)

    return walk(data, pair, rows_of, work, seed, progress, text).complete
