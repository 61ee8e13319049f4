"""Calls of one kind, equal in all but the numbers inside tensors: their graph, how it fares, what it runs on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from dlvm.inference.engine.capture import IMPLEMENTATION_ROUNDING, Captured
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
        seconds: the shortest replay, by what it runs on now.
        usual: the shortest ordinary call beside them, in seconds.
        before: the shortest replay before it was compiled.
        compiled: replays since then.
        decided: whether it has been settled what they run on.
        prospects: of compiling the graph, once replays were timed.
        ordinary: seconds of processor time of an ordinary call, once one was timed.
        repaid: after how many steps a capture is, once one was counted out.
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
    usual: float = math.inf
    before: float = math.inf
    compiled: int = 0
    decided: bool = False
    prospects: Prospects | None = None
    ordinary: float | None = None
    repaid: int | None = None

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
        self.trips, self.compiled = 0, self.compiled + (self.runs == "compiled")
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
        started = time.perf_counter()
        expected = ordinary()
        self.usual = min(self.usual, time.perf_counter() - started)
        limits = ((ROUNDING, False), (IMPLEMENTATION_ROUNDING, True))
        gaps = [
            gap if (gap := difference(expected, outcome, jointly)) > limit else 0.0
            for outcome, (limit, jointly) in zip(found, limits, strict=False)
        ]
        graph, compiled = [*gaps, 0.0, 0.0][:2]
        self.doubts = self.doubts + 1 if compiled and not graph else 0
        return expected, 0.0 if 0 < self.doubts <= MOST_DOUBTS else max(graph, compiled)
