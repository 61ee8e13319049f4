"""One pass over a data set, a few data at a time: a bar with the time left, and a Ctrl-C that loses nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from torch import Tensor

from dlvm.inference.console import bar
from dlvm.inference.programs.batches import arguments, batches_of, to_device_of
from dlvm.inference.programs.modules import evaluation_mode
from dlvm.inference.programs.randomness import untouched

Tick = Callable[[float], None]


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
    programs: Iterable[Callable],
    rows: int | Callable[[tuple], int],
    work: Callable[[tuple, Tick], None],
    seed: int = 0,
    progress: bool = False,
    text: str = "working",
) -> Walked:
    """Does some work for every datum, in order.

    Modules are in evaluation mode meanwhile, and the process's random state stays as it was. Ctrl-C ends the walk after
    the data that were done; where none was, it goes on.

    Args:
        data: a tensor x, or an iterable of batches (tuples of arguments), moved to the device of the modules.
        programs: those among them that are modules are put into evaluation mode.
        rows: how many data at once; or a function of a batch's arguments that says it, and may look at the batch.
        work: (arguments of at most ``rows`` data, tick); within long work ``tick(share)`` tells the bar what share of
            it has just been done.
        seed: of all that is drawn.
        progress: show a bar with the time left.
        text: what the bar says.

    Raises:
        TypeError, ValueError: ``data`` are no data, hold none, or one of their batches holds none.
    """
    programs, started = tuple(programs), time.perf_counter()
    batches, move = batches_of(data), to_device_of(*programs)
    done, total = 0, _number(batches)
    with untouched(seed), evaluation_mode(*programs), bar(progress) as shown:
        task = shown.add_task(text, total=total)

        def tick(share: float) -> None:
            shown.update(task, advance=share * count, refresh=True)

        try:
            for batch in batches:
                args = move(arguments(batch))
                if total is None and hasattr(batches, "__len__"):
                    total = len(args[0]) * len(batches)
                    shown.update(task, total=total)
                for part in split(args, rows(args) if callable(rows) else rows):
                    count = len(part[0])
                    work(part, tick)
                    done += count
                    shown.update(task, completed=done, refresh=True)
        except KeyboardInterrupt:
            if not done:
                raise
            return Walked(done, max(total or 0, done + 1), time.perf_counter() - started)
    if not done:
        raise ValueError("data hold no batch; pass a tensor or a loader with at least one datum")
    return Walked(done, done, time.perf_counter() - started)


def split(args: tuple, rows: int) -> Iterator[tuple]:
    """A batch's arguments, a few data at a time; what is no tensor of one row per datum goes along as it is."""
    count = len(args[0])
    for start in range(0, count, rows):
        yield tuple(
            a[start : start + rows] if isinstance(a, Tensor) and a.dim() and len(a) == count else a for a in args
        )


def width_of(args: tuple) -> int:
    """Numbers per datum in the widest of a batch's arguments, at least 1."""
    return max(1, *(a[0].numel() for a in args if isinstance(a, Tensor) and a.dim()))


def _number(batches: Iterable) -> int | None:
    """How many data there are, where this is known beforehand."""
    if isinstance(batches, (list, tuple)):
        return sum(len(arguments(batch)[0]) for batch in batches)
    return getattr(batches, "num_data", None)
