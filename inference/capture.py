"""A step of a Pyro program recorded once and replayed without Pyro."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from pyro.ops.provenance import detach_provenance
from torch import Tensor

from inference.graph import flatten, program, written
from inference.randomness import untouched
from inference.recording import Outcome, record
from inference.signature import aliased
from inference.state import Slot, State

CHECK_SEED = 20_011
ROUNDING = 1e-5
IMPLEMENTATION_ROUNDING = 1e-2


class Refused(RuntimeError):
    """A function cannot be captured; the message says why, in one line."""


class Captured:
    """A function of tensors as a flat graph, which runs the same kernels in the same order on the same noise.

    A replay changes nothing until ``commit``: where a guard trips, the call can be made again the ordinary way.

    Args:
        function: (*args, **kwargs) -> (numbers, tensors), see ``record``.
        state: what the function reads and writes beside its arguments.
        args, kwargs: an example of a call.

    Raises:
        Refused: it cannot be recorded, or the replay does not reproduce what the function computes.
    """

    def __init__(self, function: Callable[..., Outcome], state: State, args: tuple, kwargs: dict):
        self.function, self.state = function, state
        args, kwargs, batch = aliased(args, kwargs)
        self.example_batch = batch
        self.moved: list[Slot] = []
        self._pending: tuple[list, list] | None = None
        inputs = [*state.tensors, *batch]
        try:
            with untouched(), state.restored() as changed:
                recording = record(lambda: self._with_moves(args, kwargs), inputs)
        except Exception as error:  # whatever a program does that cannot be recorded, the ordinary step still can
            raise Refused(f"it cannot be recorded ({type(error).__name__}: {_first_line(error)})") from error
        self.graph = flatten(recording)
        self.missing = self.graph.missing[: len(self.graph.missing) - len(self.moved)]
        self._bind(len(state.tensors), inputs, {id(tensor) for tensor in changed})
        self.replay = self.run = program(self.graph.module)
        self._verify(args, kwargs, batch)

    def _with_moves(self, args: tuple, kwargs: dict) -> Outcome:
        """The function, with what it puts in other tensors' places among its results."""
        numbers, tensors = self.function(*args, **kwargs)
        self.moved = self.state.rebound()
        new = [slot.home.get(slot.name) for slot in self.moved]
        for slot, value in zip(self.moved, new, strict=True):
            if not isinstance(value, Tensor) or value.shape != slot.value.shape or value.dtype != slot.value.dtype:
                raise Refused(f"{slot.name} changes its shape or type from step to step")
        return numbers, [*tensors, *(detach_provenance(value).detach() for value in new)]

    def _bind(self, fixed: int, inputs: list[Tensor], changed: set[int]) -> None:
        """Lays out the graph's arguments: those that stay, those of the batch, and those that the graph writes to."""
        positions = self.graph.inputs
        self.examples = [inputs[p].detach() for p in positions] + self.graph.constants
        self.arguments = [inputs[p] if p < fixed else None for p in positions] + self.graph.constants
        self.batch = [(at, p - fixed) for at, p in enumerate(positions) if p >= fixed]
        found = written(self.graph.module) | {at for at, a in enumerate(self.arguments) if id(a) in changed}
        self.written = sorted(at for at in found if self.arguments[at] is not None)

    @torch.no_grad()
    def __call__(self, batch: list[Tensor], run: Callable | None = None) -> tuple[list[float], list] | None:
        """Replays with the tensors of a call; returns (numbers, tensors), or None where a guard tripped."""
        arguments = self.arguments.copy()
        for at, position in self.batch:
            arguments[at] = batch[position]
        for at in self.written:
            arguments[at] = arguments[at].clone()
        summary, *tensors = (run or self.run)(*arguments)
        numbers = summary.tolist()
        if self.graph.guards and not numbers.pop():
            return None
        self._pending = arguments, tensors[len(tensors) - len(self.moved) :]
        given = iter(tensors)
        return numbers, [None if missing else next(given) for missing in self.missing]

    @torch.no_grad()
    def commit(self) -> None:
        """Makes what the last replay wrote the state of modules and objective."""
        arguments, moves = self._pending
        self._pending = None
        for at in self.written:
            self.arguments[at].copy_(arguments[at])
        for slot, new in zip(self.moved, moves, strict=True):
            slot.value.copy_(new)

    def use(self, run: Callable[..., list[Tensor]]) -> None:
        """Replays by another implementation of the same graph from now on.

        Raises:
            Refused: it does not compute the same numbers, to rounding.
        """
        expected = self._observed(lambda: self(self.example_batch, self.replay))
        found = self._observed(lambda: self(self.example_batch, run))
        if expected is not None and (found is None or difference(expected, found) > IMPLEMENTATION_ROUNDING):
            raise Refused("it computes other numbers than the graph")
        self.run = run

    def _verify(self, args: tuple, kwargs: dict, batch: list[Tensor]) -> None:
        """Holds the replay against the function itself, on other noise than that of the recording."""
        expected = self._observed(lambda: self.function(*args, **kwargs))
        found = self._observed(lambda: self(batch))
        if found is None:
            raise Refused("a Python value that it reads from a tensor changes with the noise")
        if not all(map(math.isfinite, expected[0])):
            raise Refused("its numbers are not finite yet")
        gap = difference(expected, found)
        repeats = gap == 0 or difference(expected, self._observed(lambda: self.function(*args, **kwargs))) == 0
        if gap > (0 if repeats else ROUNDING):
            raise Refused(f"its replay differs from the step itself, by {gap:.1e} of the gradient")

    def _observed(self, run: Callable[[], Outcome | None]) -> Outcome | None:
        """What a run returns and leaves behind, under one seed; afterwards all is as before."""
        with untouched(CHECK_SEED), self.state.restored():
            before = self.state.values()
            outcome = run()
            if outcome is None:
                return None
            if self.state.values() != before:
                raise Refused(f"the program changes {self.state.changed(before)}, a Python value, at every step")
            self.state.settle() if self._pending is None else self.commit()
            numbers, tensors = outcome
            left = [t.detach().clone() for t in (*tensors, *self.state.tensors) if t is not None]
        return numbers, left


def difference(expected: Outcome, found: Outcome) -> float:
    """How far two outcomes are apart, relative to the larger one: 0 if all tensors agree bit for bit.

    Numbers, which Python adds up in double precision and a graph in single, may differ by rounding.
    """
    gaps = [abs(a - b) / max(abs(a), abs(b), 1e-30) for a, b in zip(expected[0], found[0], strict=True)]
    worst = max((gap for gap in gaps if not gap <= ROUNDING), default=0.0)
    pairs = [(a, b) for a, b in zip(expected[1], found[1], strict=True) if a is not None]
    if all(torch.equal(a, b) for a, b in pairs):
        return worst
    apart = math.hypot(*((a - b).double().norm().item() for a, b in pairs))
    size = math.hypot(*(a.double().norm().item() for a, _ in pairs))
    return max(worst, apart / max(size, 1e-30)) if math.isfinite(apart) else math.inf


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
