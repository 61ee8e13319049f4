"""Which of three ways a step runs: by Pyro, from its captured graph, or compiled."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

import pyro

from inference.capture import ROUNDING, Captured, Refused, difference
from inference.compiler import NoCompiler, compile_graph, seconds_saved, seconds_to_compile
from inference.cuda_graph import CudaGraph, graphable
from inference.heap import hold
from inference.notices import say
from inference.randomness import drawn_state, restore_drawn, untouched
from inference.recording import Outcome
from inference.signature import split
from inference.state import State

ENGINES = ("auto", "eager", "captured", "compiled")
STEPS_TO_REPAY_CAPTURE = 100
SIGHTINGS_OF_AN_ODD_SHAPE = 50
STEPS_BETWEEN_AUDITS = 200
STEPS_TO_TIME = 20
MOST_GRAPHS = 16
MOST_RECAPTURES = 3


class Baked(RuntimeError):
    """A captured step no longer computes what the programs say; the message says since when, and the remedy."""


@dataclass
class _Kind:
    """Calls of one key: how often they came, their graph, and how it fared."""

    seen: int = 0
    captured: Captured | None = None
    refused: bool = False
    decided: bool = False
    replays: int = 0
    trips: int = 0
    recaptures: int = 0
    seconds: float = math.inf
    runs: str = "captured"


class Engine:
    """Calls a function of tensors, quicker from the second call on, with the same result.

    Args:
        function: (*args, **kwargs) -> (numbers, tensors), see ``record``.
        parts: the modules and objectives that it reads and writes.
        mode: "auto", "eager", "captured" or "compiled".
        steps: how many calls are planned; None if nobody knows.
        stores: gives further dictionaries of tensors that it reads and writes.
        careful: the same function with all its checks, called wherever a graph is not; ``function`` unless told.
        finite: whether numbers that are not finite call for ``careful`` to say why.
        prompt: capture at the second call, rather than when the calls so far would have repaid it.
        name: what a notice about this engine begins with; None for no notices.

    Raises:
        Refused: mode is "captured" or "compiled", and the function cannot be captured.
        NoCompiler: mode is "compiled", and the graph cannot be compiled.
        Baked: an audit found that a graph holds something that has changed since.
    """

    def __init__(
        self,
        function: Callable[..., Outcome],
        parts: Iterable[object],
        mode: str = "auto",
        steps: int | None = None,
        stores: Callable[[], list[dict]] = list,
        careful: Callable[..., Outcome] | None = None,
        finite: bool = True,
        prompt: bool = True,
        name: str | None = None,
    ):
        if mode not in ENGINES:
            raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {mode!r}")
        self.function, self.careful = function, careful or function
        self.parts, self.stores = tuple(parts), stores
        self.mode, self.steps, self.finite, self.prompt = mode, steps, finite, prompt
        self.name = name
        self.done = self.lost = 0
        self.state: State | None = None
        self.kinds: OrderedDict[Hashable, _Kind] = OrderedDict()
        self._values, self._scalars = None, ()

    def __call__(self, *args, **kwargs) -> Outcome:
        self.done += 1
        if self.mode == "eager":
            return self.careful(*args, **kwargs)
        tensors, key = split(args, kwargs)
        if key is None:
            return self._eager(args, kwargs)
        if not self._follow():
            outcome = self._eager(args, kwargs)
            if self._follow():
                self._kind((key, self._scalars)).seen += 1
            return outcome
        kind = self._kind((key, self._scalars))
        kind.seen += 1
        if kind.captured is None and not self._worth_capturing(kind):
            return self._eager(args, kwargs)
        if kind.captured is None and not self._capture(kind, args, kwargs):
            return self._eager(args, kwargs)
        return self._replay(kind, tensors, args, kwargs)

    @property
    def running(self) -> str:
        """What the latest kind of call runs on: "eager", "captured" or "compiled"."""
        kind = next(reversed(self.kinds.values()), None)
        return "eager" if kind is None or kind.captured is None else kind.runs

    def _follow(self) -> bool:
        """Keeps up with changes to modules between calls; False if nothing is known of them yet."""
        if self.state is not None and not self.state.intact():
            self._forget()
        if self.state is None:
            return False
        values = self.state.values()
        if values != self._values:
            self._values, self._scalars = values, tuple(values)
        return True

    def _forget(self) -> None:
        self.state, self._values = None, None
        self.kinds.clear()
        self.lost += 1
        if self.lost == MOST_RECAPTURES:
            self._say("tensors of the modules are replaced again and again; change them in place (copy_, fill_)")

    def _say(self, line: str) -> None:
        if self.name is not None:
            say(f"{self.name}: {line}")

    def _kind(self, key: Hashable) -> _Kind:
        kind = self.kinds.setdefault(key, _Kind())
        self.kinds.move_to_end(key)
        if len(self.kinds) > MOST_GRAPHS:
            self.kinds.popitem(last=False)
        return kind

    def _eager(self, args: tuple, kwargs: dict) -> Outcome:
        outcome = self.careful(*args, **kwargs)
        if self.state is None:
            self.state = State(self.parts, self.stores())
        elif not self.state.settle():
            self._forget()
        return outcome

    def _worth_capturing(self, kind: _Kind) -> bool:
        if kind.refused or kind.seen < 2:
            return False
        if self.mode != "auto":
            return True
        if self.steps is not None and self.steps - self.done < STEPS_TO_REPAY_CAPTURE:
            self._say("eager, since so few steps do not repay a capture")
            return False
        odd = any(other.captured for other in self.kinds.values())
        return kind.seen > SIGHTINGS_OF_AN_ODD_SHAPE or (self.prompt and not odd)

    def _capture(self, kind: _Kind, args: tuple, kwargs: dict) -> bool:
        started = time.perf_counter()
        try:
            kind.captured = Captured(self.function, self.state, args, kwargs)
            self._install(kind, kind.captured.replay)
        except Refused as error:
            kind.refused = True
            if self.mode != "auto":
                raise Refused(f"the step cannot be captured: {error}; use engine='auto' or 'eager'") from error
            self._say(f"eager, since the step cannot be captured: {error}")
            return False
        hold(self)
        self.capture_seconds = time.perf_counter() - started
        if self.mode == "compiled" and not any(other.runs == "compiled" for other in self.kinds.values()):
            self._compile(kind)
        return True

    def _replay(self, kind: _Kind, tensors: list, args: tuple, kwargs: dict) -> Outcome:
        kind.replays += 1
        if kind.replays % STEPS_BETWEEN_AUDITS == 0:
            return self._audit(kind, tensors, args, kwargs)
        state, started = drawn_state(), time.perf_counter()
        try:
            outcome = kind.captured(tensors)
        except RuntimeError:  # parameters were given another type or device; the ordinary step says it better
            outcome = None
        if outcome is None or (self.finite and not all(map(math.isfinite, outcome[0]))):
            restore_drawn(state)
            return self._redo(kind, args, kwargs, tripped=outcome is None)
        kind.captured.commit()
        kind.trips = 0
        if not kind.decided:
            self._decide(kind, time.perf_counter() - started)
        return outcome

    def _redo(self, kind: _Kind, args: tuple, kwargs: dict, tripped: bool) -> Outcome:
        """The call once more, by Pyro: for the message if something is wrong, for the result if nothing is."""
        if not tripped:
            with pyro.validation_enabled(True):
                return self._eager(args, kwargs)
        outcome = self._eager(args, kwargs)
        kind.trips += 1
        if kind.trips > 1:
            kind.captured, kind.trips, kind.recaptures = None, 0, kind.recaptures + 1
            if kind.recaptures >= MOST_RECAPTURES:
                kind.refused = True
                self._say("eager, since values that Python reads from tensors differ from step to step")
        return outcome

    def _audit(self, kind: _Kind, tensors: list, args: tuple, kwargs: dict) -> Outcome:
        """One step both ways, under the same noise."""
        state = drawn_state()
        found = kind.captured(tensors, kind.captured.replay)
        if found is not None:
            found = found[0], [None if t is None else t.clone() for t in found[1]]
        restore_drawn(state)
        expected = self._eager(args, kwargs)
        if found is not None and self.state is not None:
            gap = difference(expected, found)
            if gap > ROUNDING:
                raise Baked(
                    f"step {self.done}: the captured step differs from the programs by {gap:.1e} of the gradient, so "
                    "something that Python reads has changed since it was captured: a number in a closure, a global or "
                    "a list, or a tensor replaced by another; make it a 0-d buffer of the module and change it by "
                    "fill_, or pass engine='eager'"
                )
        return expected

    def _decide(self, kind: _Kind, seconds: float) -> None:
        """Compiles once the steps to come repay it, or, if nobody knows how many come, those that went would have."""
        kind.seconds = min(kind.seconds, seconds)
        if kind.replays < STEPS_TO_TIME:
            return
        if self.mode == "captured":
            kind.decided = True
            return
        graph = kind.captured.graph
        cost = seconds_to_compile(graph.module, kind.captured.examples, graph.size)
        saved = seconds_saved(graph.size, kind.seconds)
        repaid = math.ceil(cost / saved)
        to_come = kind.replays if self.steps is None else self.steps - self.done
        if to_come >= repaid:
            self._compile(kind)
        elif self.steps is not None:
            kind.decided = True
            self._say(f"captured; compiling repays after {repaid} steps, {to_come} are to come")

    def _compile(self, kind: _Kind) -> None:
        kind.decided = True
        captured, started = kind.captured, time.perf_counter()
        try:
            with untouched():
                compiled = compile_graph(captured.graph.module, captured.examples)
            self._install(kind, compiled)
        except (NoCompiler, Refused) as error:
            if self.mode == "compiled":
                raise NoCompiler(f"the step cannot be compiled: {error}; use engine='auto' or 'captured'") from error
            self._say(f"captured, since the step cannot be compiled: {error}")
            return
        kind.runs, self.compile_seconds = "compiled", time.perf_counter() - started
        hold(self)
        self._say(f"compiled in {self.compile_seconds:.0f} s")

    def _install(self, kind: _Kind, run: Callable) -> None:
        """Replays by ``run``, on a GPU as one launch."""
        captured = kind.captured
        if graphable(captured.graph.module, captured.examples):
            with untouched():
                run = CudaGraph(run, captured.examples, [at for at, _ in captured.batch], captured.written)
        if run is not captured.replay:
            captured.use(run)
