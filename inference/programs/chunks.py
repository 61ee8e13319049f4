"""One pass over a data set, a few data at a time: a bar with the time left, and a Ctrl-C that loses nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from rich.progress import Progress
from torch import Tensor

from dlvm.inference.console import bar
from dlvm.inference.programs.batches import arguments, batches_of, length_of, to_device_of
from dlvm.inference.programs.notes import noting
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.randomness import untouched
from dlvm.inference.programs.row_arguments import number_of_rows, parts
from dlvm.inference.programs.rows import batch_size

Tick = Callable[[float], None]
Work = Callable[[tuple, Tick], None]


class Walked(NamedTuple):
    """How far a walk came.

    Attributes:
        done: data that were done.
        asked: data that there are; after Ctrl-C at least one more than were done.
        seconds: it took.
    """

    done: int
    asked: int
    seconds: float

    @property
    def complete(self) -> bool:
        return self.done == self.asked


def walk(
    data: Tensor | Iterable,
    pair: Pair,
    rows: int | Callable[[tuple], int],
    work: Work,
    seed: int = 0,
    progress: bool = False,
    text: str = "working",
) -> Walked:
    """Does some work for every datum, in order.

    Modules are in evaluation mode meanwhile, and the process's random state stays as it was. Ctrl-C ends the walk after
    the data that were done; where none was, it goes on.

    Args:
        data: a tensor x, or an iterable of batches (tuples of arguments), moved to the device of the modules.
        pair: whose modules are put into evaluation mode.
        rows: how many data at once; or a function of a batch's arguments that says it, and may look at the batch. A
            batch that cannot be cut, see ``rowed``, is handed over whole.
        work: (arguments of at most ``rows`` data, tick); within long work ``tick(share)`` tells the bar what share of
            it has just been done.
        seed: of all that is drawn.
        progress: show a bar with the time left.
        text: what the bar says.

    Raises:
        TypeError, ValueError: ``data`` are no data, hold none, or one of their batches holds none.
    """
    with walking(pair, seed, progress) as steps:
        return steps.over(data, rows, work, text)


@contextmanager
def walking(pair: Pair, seed: int = 0, progress: bool = False) -> Iterator[Steps]:
    """Inside, data can be walked over, several times in one random stream; see ``walk``."""
    with untouched(seed), pair.evaluating(), bar(progress) as shown:
        yield Steps(pair, shown)


class Steps:
    """What is done between the beginning and the end of ``walking``."""

    def __init__(self, pair: Pair, shown: Progress):
        self.pair, self.shown = pair, shown

    def over(self, data: Tensor | Iterable, rows: int | Callable[[tuple], int], work: Work, text: str) -> Walked:
        """See ``walk``."""
        started, done = time.perf_counter(), 0
        batches, move = batches_of(data), to_device_of(self.pair)
        total = _number(self.pair, batches)
        task = self.shown.add_task(text, total=total)

        def tick(share: float) -> None:
            self.shown.update(task, advance=share * count, refresh=True)

        try:
            for place, batch in enumerate(batches, start=1):
                args = move(arguments(batch))
                if total is None and (number := length_of(batches)) is not None:
                    total = batch_size(self.pair, args) * number
                    self.shown.update(task, total=total)
                with noting(partial("in batch {} of the data".format, place)):
                    at_once = rows(args) if callable(rows) else rows
                    for part in parts(self.pair, args, at_once):
                        count = (number_of_rows if part is args else batch_size)(self.pair, part)
                        work(part, tick)
                        done += count
                        self.shown.update(task, completed=done, refresh=True)
        except KeyboardInterrupt:
            if not done:
                raise
            return Walked(done, max(total or 0, done + 1), time.perf_counter() - started)
        if not done:
            raise ValueError("data hold no batch; pass a tensor or a loader with at least one datum")
        return Walked(done, done, time.perf_counter() - started)

    def ticks(self, text: str, total: int) -> Callable[[int], None]:
        """A further bar; returns what tells it how much has just been done."""
        task = self.shown.add_task(text, total=total)
        return lambda number: self.shown.update(task, advance=number, refresh=True)


def _number(pair: Pair, batches: Iterable) -> int | None:
    """How many data there are, where this is known beforehand."""
    if isinstance(batches, (list, tuple)):
        return sum(batch_size(pair, arguments(batch)) for batch in batches)
    return getattr(batches, "num_data", None)
