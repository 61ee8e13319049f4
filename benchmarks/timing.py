"""Timing side by side: what one variant suffers from the machine, the others suffer too."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple


class Spread(NamedTuple):
    """Median, smallest and largest of the repetitions."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.low:.3g}-{self.high:.3g}]"


def spread(values: Iterable[float]) -> Spread:
    """
    Example:
        >>> spread([3.0, 1.0, 2.0])
        Spread(median=2.0, low=1.0, high=3.0)
    """
    values = list(values)
    return Spread(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Timings:
    """Seconds per call of each variant, one number per repetition."""

    seconds: dict[str, list[float]]

    def __contains__(self, name: object) -> bool:
        return name in self.seconds

    def of(self, name: str) -> Spread:
        """Seconds per call."""
        return spread(self.seconds[name])

    def ratio(self, name: str, to: str) -> Spread:
        """Seconds of one variant over those of another, formed within each repetition before the median is taken.

        Example:
            >>> Timings({"a": [1.0, 4.0], "b": [2.0, 8.0]}).ratio("a", "b").median
            0.5
        """
        return spread(a / b for a, b in zip(self.seconds[name], self.seconds[to], strict=True))


class Stopwatch:
    """Seconds, less those that a variant wants left out: its start, where only its pace is of interest.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self.clock, self.left_out = clock, 0.0

    def __call__(self) -> float:
        return self.clock() - self.left_out

    def leave_out_since(self, start: float) -> None:
        """Sets the watch back to what it showed at ``start``."""
        self.left_out += self() - start


def measure(
    variants: Mapping[str, Callable[[], object]],
    repetitions: int = 7,
    block_seconds: float = 0.25,
    warmup: int = 5,
    quiet: Callable[[], AbstractContextManager] = nullcontext,
    clock: Callable[[], float] = time.perf_counter,
) -> Timings:
    """Times variants in turn, in blocks of calls, in reversed order at every other repetition.

    Each variant warms up first, compilation included; its block then holds as many calls as fill ``block_seconds``. The
    heap is frozen meanwhile: a pass of the garbage collector over a captured graph is longer than many steps.

    Returns:
        seconds per call, for each variant and repetition.

    Args:
        variants: by name, each called without arguments.
        repetitions: blocks per variant.
        block_seconds: about how long a block lasts.
        warmup: calls before anything is timed.
        quiet: makes a context in which the blocks run, after warming up: ``settled`` for example.
        clock: seconds.

    Raises:
        ValueError: there are no variants, or a count is below 1.

    Example:
        >>> sorted(measure({"a": lambda: None, "b": lambda: None}, repetitions=1, block_seconds=0.0).seconds)
        ['a', 'b']
    """
    if not variants or repetitions < 1 or warmup < 1:
        raise ValueError(
            f"measure needs a variant, repetitions >= 1 and warmup >= 1, got {list(variants)}, {repetitions}, {warmup}"
        )
    calls = {}
    for name, call in variants.items():
        _block(call, warmup, clock)
        calls[name] = max(1, math.ceil(block_seconds / max(_block(call, 1, clock), 1e-9)))
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    order = list(variants)
    gc.collect()
    gc.freeze()
    try:
        with quiet():
            for _ in range(repetitions):
                for name in order:
                    seconds[name].append(_block(variants[name], calls[name], clock))
                order.reverse()
    finally:
        gc.unfreeze()
    return Timings(seconds)


def _block(call: Callable[[], object], calls: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(calls):
        call()
    return (clock() - start) / calls
