"""From a method for one batch to an estimate for a data set: chunks, progress, Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import pyro
import torch
from pyro import poutine
from torch import Tensor

from evidence.estimate import Estimate
from inference.modes import evaluation_mode
from inference.observed import check_observed
from inference.ownership import own
from inference.progress import bar
from inference.randomness import untouched
from inference.streams import arguments, batches_of, to_device_of

Tick = Callable[[float], None]


@torch.no_grad()
def over(
    data: Tensor | Iterable,
    method: Callable[[tuple, Tick], Estimate],
    programs: Iterable[Callable],
    rows: int,
    seed: int = 0,
    progress: bool = False,
    text: str = "estimating log p(x)",
) -> Estimate:
    """Applies a method to a few data at a time.

    Modules are in evaluation mode meanwhile, and the process's random state stays as it was. After Ctrl-C the estimate
    is of the data that were done; where none was, the interrupt goes on.

    Returns:
        the estimates joined.

    Args:
        data: a tensor x, or an iterable of batches (tuples of arguments), moved to the device of the modules.
        method: (arguments of at most ``rows`` data, tick) -> estimate of these; ``tick(share)`` reports what share of
            this work has just been done, so that the time left is known within long work.
        programs: the model first; modules among them are put into evaluation mode.
        rows: how many data at once.
        seed: of all that is drawn.
        progress: show a bar with the time left.
        text: what the bar says.

    Raises:
        ValueError: there are no data, a batch is empty, or lies outside the likelihood's support.
    """
    programs, started = tuple(programs), time.perf_counter()
    batches, move = batches_of(data), to_device_of(*programs)
    counted = hasattr(batches, "__len__")
    found: list[Estimate] = []
    done = total = 0
    with untouched(seed), evaluation_mode(*programs), bar(progress) as shown:
        task = shown.add_task(text, total=None)

        def tick(share: float) -> None:
            shown.advance(task, share * count)
            shown.refresh()

        try:
            for batch in batches:
                args = move(arguments(batch))
                if not len(args[0]):
                    raise ValueError(f"a batch of shape {tuple(args[0].shape)} holds no datum; leave it out")
                total = max(total, getattr(batches, "num_data", len(args[0]) * len(batches)) if counted else 0)
                shown.update(task, total=total or None)
                for part in split(args, rows):
                    check_observed(poutine.trace(own(programs[0])).get_trace(*part))
                    count = len(part[0])
                    with pyro.validation_enabled(False):  # the data were held against the likelihood just now
                        found.append(method(part, tick))
                    done += count
                    shown.update(task, completed=done)
        except KeyboardInterrupt:
            if not found:
                raise
            return Estimate.joined(found, time.perf_counter() - started, asked=max(total, done + 1))
    return Estimate.joined(found, time.perf_counter() - started, asked=done)


def split(args: tuple, rows: int) -> Iterator[tuple]:
    """A batch's arguments, a few data at a time; what is no tensor of one row per datum goes along as it is."""
    count = len(args[0])
    for start in range(0, count, rows):
        yield tuple(
            a[start : start + rows] if isinstance(a, Tensor) and a.dim() and len(a) == count else a for a in args
        )
