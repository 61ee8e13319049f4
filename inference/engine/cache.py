"""Calls of one kind, equal in all but the numbers inside tensors: their graph, how it fares, what it runs on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor
from torch.utils._pytree import tree_flatten

from dlvm.inference.engine.capture import IMPLEMENTATION_ROUNDING, Captured
from dlvm.inference.engine.module_state import SCALARS
from dlvm.inference.engine.recording import ROUNDING, Outcome, difference
from dlvm.inference.programs.randomness import drawn_state, restore_drawn

STEPS_BETWEEN_AUDITS = 200
MOST_RETRIES = 3
MOST_DOUBTS = 1


class Baked(RuntimeError):
    """A captured step no longer computes what the programs say; the message says since when, and the remedy."""


class Prospects(NamedTuple):
    """What compiling a graph takes, in seconds, and how many steps repay that."""

    cost: float
    steps: int


@dataclass
class Kind:
    """What is known of calls of one kind.

    Attributes:
        seen: how many there were.
        captured: their graph.
        runs: "captured" or "compiled".
        refused: whether it is no use to capture them.
        retries: failed captures, and graphs whose guards tripped too often.
        replays: calls since the capture.
        trips: calls in a row whose guards tripped.
        doubts: audits in a row in which the graph agreed with the programs, and the compiled graph was far off.
        seconds: the shortest replay.
        decided: whether it has been settled what they run on.
        prospects: of compiling the graph, once replays were timed.
    """

    seen: int = 0
    captured: Captured | None = None
    runs: str = "captured"
    refused: bool = False
    retries: int = 0
    replays: int = 0
    trips: int = 0
    doubts: int = 0
    seconds: float = math.inf
    decided: bool = False
    prospects: Prospects | None = None

    @property
    def audited_now(self) -> bool:
        """At first often, since what is baked shows as soon as data change; then every so many steps; and in doubt."""
        n = self.replays
        return self.doubts > 0 or n % STEPS_BETWEEN_AUDITS == 0 or (n < STEPS_BETWEEN_AUDITS and n & (n - 1) == 0)

    def replay(self, captured: Captured, tensors: list[Tensor], finite: bool) -> tuple[Outcome | None, bool]:
        """One call from the graph: what it gives, and whether guards held; nothing has happened if it gives None."""
        state, started = drawn_state(), time.perf_counter()
        try:
            outcome = captured(tensors)
        except RuntimeError:  # parameters were given another type or device; the ordinary step says it better
            outcome = None
        if outcome is None or (finite and not all(map(math.isfinite, outcome[0]))):
            restore_drawn(state)
            return None, outcome is not None
        captured.commit()
        self.trips = 0
        self.seconds = min(self.seconds, time.perf_counter() - started)
        return outcome, True

    def trip(self) -> bool:
        """Takes note of a tripped guard; returns whether these calls are better left to Pyro for good."""
        self.trips += 1
        if self.trips > 1:  # not one odd batch: what Python reads has changed, and another graph may hold
            self.captured, self.trips, self.seen, self.retries = None, 0, 0, self.retries + 1
            self.refused = self.retries >= MOST_RETRIES
        return self.refused

    def audit(
        self, captured: Captured, tensors: list[Tensor], ordinary: Callable[[], Outcome]
    ) -> tuple[Outcome, float]:
        """One call each way under the same noise; returns the ordinary outcome, and the gap where it is too large.

        By rounding alone a unit at its kink may change sides in the compiled graph, which moves the gradient by up to a
        few hundredths; that hardly happens twice in a row.
        """
        state, found = drawn_state(), []
        for run in dict.fromkeys((captured.replay, captured.run)):
            outcome = captured(tensors, run)
            if outcome is not None:
                found.append((outcome[0], [None if t is None else t.clone() for t in outcome[1]]))
            restore_drawn(state)
        expected = ordinary()
        limits = ((ROUNDING, False), (IMPLEMENTATION_ROUNDING, True))
        gaps = [
            gap if (gap := difference(expected, outcome, jointly)) > limit else 0.0
            for outcome, (limit, jointly) in zip(found, limits, strict=False)
        ]
        graph, compiled = [*gaps, 0.0, 0.0][:2]
        self.doubts = self.doubts + 1 if compiled and not graph else 0
        return expected, 0.0 if 0 < self.doubts <= MOST_DOUBTS else max(graph, compiled)


def keyed(args: tuple, kwargs: dict) -> tuple[list[Tensor], Hashable | None]:
    """The tensors among arguments, and a key of all else: shapes, strides, types, plain values, global settings.

    The key is None where calls cannot be told apart by it: arguments of other kinds, tensors that want a gradient.
    """
    world = torch.get_default_dtype(), is_validation_enabled(), torch.is_grad_enabled(), *_autocast()
    flat: Sequence[Any] = args
    structure = None
    if kwargs or not all([type(a) is Tensor or isinstance(a, SCALARS) for a in args]):
        flat, tree = tree_flatten((args, kwargs))
        structure = str(tree)
    entries: list[tuple] = []
    tensors: list[Tensor] = []
    for value in flat:
        if isinstance(value, Tensor):
            if value.requires_grad or value.layout != torch.strided:
                return [], None
            tensors.append(value)
            entries.append((value.shape, value.stride(), value.dtype, value.device))
        elif isinstance(value, SCALARS):
            entries.append((type(value), value))
        else:
            return [], None
    return tensors, (world, structure, *entries)


def _autocast() -> tuple[torch.dtype, ...]:
    return tuple(torch.get_autocast_dtype(kind) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind))
