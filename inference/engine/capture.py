"""A step of a Pyro program recorded once and replayed without Pyro."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import overload

import torch
from pyro.ops.provenance import detach_provenance
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from dlvm.inference.console import first_line
from dlvm.inference.engine.graph import flatten, written
from dlvm.inference.engine.module_state import Place, State
from dlvm.inference.engine.recording import ROUNDING, Outcome, Refused, difference, equal_with_nan, record
from dlvm.inference.programs.randomness import untouched
from dlvm.nets.flat_program import flat_program

CHECK_SEED = 20_011
IMPLEMENTATION_ROUNDING = 1e-2
_owners: set[int] = set()


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
        args, kwargs, self.example_batch = aliased(args, kwargs)
        self.filled: list[Place] = []
        self._pending: tuple[list[Tensor], list[Tensor]] | None = None
        try:
            self._record(args, kwargs)
            self._verify(args, kwargs)
        except Refused as error:  # on its way out of a program, Pyro adds lines of its own
            raise Refused(first_line(error), error.for_now) from error
        except Exception as error:  # whatever a program does that cannot be recorded, the ordinary step still can
            raise Refused(f"it cannot be recorded ({type(error).__name__}: {first_line(error)})") from error

    def _record(self, args: tuple, kwargs: dict) -> None:
        state, batch = self.state, self.example_batch
        kept = [tensor.clone() for tensor in batch]
        with untouched(), state.restored() as changed:
            with _distinct(state.flowing) as flowing:
                inputs = [*state.tensors, *(tensor for _, tensor in flowing), *batch]
                recording = record(lambda: self._with_filled(args, kwargs), inputs)
        if not all(map(equal_with_nan, kept, batch)):
            raise Refused("the program changes its arguments in place")
        self.graph = flatten(recording)
        self.missing = self.graph.missing[: len(self.graph.missing) - len(self.filled)]
        self.flowing = [place for place, _ in flowing]
        self._bind(inputs, {id(tensor) for tensor in changed})
        self.replay = self.run = self.before = flat_program(self.graph.module.graph)

    def _with_filled(self, args: tuple, kwargs: dict) -> Outcome:
        """The function, with what it puts into the flowing places among its results."""
        before = [place.now for place in self.state.flowing]
        numbers, tensors = self.function(*args, **kwargs)
        if strays := [place.name for place in self.state.bound if place.now is not place.value]:
            raise Refused(f"the program replaces {strays[0]} only now and then")
        flowing = zip(self.state.flowing, before, strict=True)
        self.filled = [place for place, value in flowing if place.now is not value]
        if others := [place.name for place in self.filled if not isinstance(place.now, Tensor)]:
            raise Refused(f"the program fills {others[0]} with something that is no tensor")
        return numbers, [*tensors, *(detach_provenance(place.now).detach() for place in self.filled)]

    def _bind(self, inputs: list[Tensor], changed: set[int]) -> None:
        """Lays out the graph's arguments: those that stay, those that flow, those of a batch, those it writes to."""
        first, second = len(self.state.tensors), len(inputs) - len(self.example_batch)
        where, constants = self.graph.inputs, self.graph.constants
        examples = [inputs[p].detach() for p in where]
        own = [inputs[p] if p < first else example for p, example in zip(where, examples, strict=True)]
        self.examples, self.arguments = examples + constants, own + constants
        self.drawn = [(at, self.flowing[p - first]) for at, p in enumerate(where) if first <= p < second]
        self.batch = [(at, p - second) for at, p in enumerate(where) if p >= second]
        found = written(self.graph.module) | {at for at, a in enumerate(self.arguments) if id(a) in changed}
        if any(at in found for at, _ in self.batch):
            raise Refused("the program changes its arguments in place")
        self.written = sorted(found)

    @property
    def copied(self) -> list[int]:
        """Positions of the arguments that are other tensors from call to call."""
        return [at for at, _ in (*self.batch, *self.drawn)]

    def accepts(self) -> bool:
        """Whether the flowing places that the graph reads hold tensors like those it was recorded with."""
        for at, place in self.drawn:
            now, like = place.now, self.examples[at]
            if not isinstance(now, Tensor) or now.shape != like.shape or now.dtype != like.dtype:
                return False
        return True

    @torch.no_grad()
    def __call__(self, batch: list[Tensor], run: Callable | None = None) -> Outcome | None:
        """Replays with the tensors of a call; returns (numbers, tensors), or None where a guard tripped."""
        arguments = self.arguments.copy()
        for at, position in self.batch:
            arguments[at] = batch[position]
        for at, place in self.drawn:
            arguments[at] = detach_provenance(place.now).detach()
        for at in self.written:
            arguments[at] = arguments[at].clone()
        summary, *tensors = (run or self.run)(*arguments)
        numbers = summary.tolist()
        if self.graph.guards and not numbers.pop():
            return None
        self._pending = arguments, tensors[len(tensors) - len(self.filled) :]
        given = iter(tensors)
        return numbers, [None if missing else next(given) for missing in self.missing]

    @torch.no_grad()
    def commit(self) -> None:
        """Makes what the last replay wrote the state of modules and objective."""
        if self._pending is None:
            return
        arguments, new = self._pending
        self._pending = None
        flowing = dict(self.drawn)
        for at in self.written:
            target = detach_provenance(flowing[at].now) if at in flowing else self.arguments[at]
            target.copy_(arguments[at])
        for place, value in zip(self.filled, new, strict=True):
            leaf = isinstance(place.now, Tensor) and place.now.is_leaf and place.now.requires_grad
            value = value.clone() if value.is_cuda else value  # a CUDA graph writes its next results over these
            place.home[place.name] = value.requires_grad_() if leaf else value

    def use(self, run: Callable[..., list[Tensor]]) -> None:
        """Replays by another implementation of the same graph from now on.

        Raises:
            Refused: it does not compute the same numbers, to rounding.
        """
        expected = self._observed(lambda: self(self.example_batch, self.replay))
        found = self._observed(lambda: self(self.example_batch, run))
        if expected is not None and (
            found is None or difference(expected, found, jointly=True) > IMPLEMENTATION_ROUNDING
        ):
            raise Refused("it computes other numbers than the graph")
        self.before, self.run = self.run, run

    def _verify(self, args: tuple, kwargs: dict) -> None:
        """Holds the replay against the function itself, on other noise than that of the recording."""
        expected = self._observed(lambda: self.function(*args, **kwargs))
        found = self._observed(lambda: self(self.example_batch))
        if not all(map(math.isfinite, expected[0])):
            raise Refused("its numbers are not finite", for_now=True)
        if found is None:
            raise Refused("a Python value that it reads from a tensor changes with the noise", for_now=True)
        gap = difference(expected, found)
        repeats = gap == 0 or difference(expected, self._observed(lambda: self.function(*args, **kwargs))) == 0
        if gap > (0 if repeats else ROUNDING):
            raise Refused(f"its replay differs from the step itself, by a share of {gap:.1e}")

    @overload
    def _observed(self, run: Callable[[], Outcome]) -> Outcome: ...

    @overload
    def _observed(self, run: Callable[[], Outcome | None]) -> Outcome | None: ...

    def _observed(self, run: Callable[[], Outcome | None]) -> Outcome | None:
        """What a run returns and leaves behind, under one seed; afterwards all is as before."""
        with untouched(CHECK_SEED), self.state.restored():
            before = self.state.values()
            outcome = run()
            if outcome is None:
                return None
            changed = [p.name for p, value in zip(self.state.scalars, before, strict=True) if p.now != value]
            if changed:
                raise Refused(f"the program changes {changed[0]}, a Python value, at every step")
            self.commit()
            numbers, tensors = outcome
            left = [detach_provenance(place.now) for place in self.filled]
            return numbers, [t.detach().clone() for t in (*tensors, *self.state.tensors, *left) if t is not None]


@contextmanager
def _distinct(places: list[Place]) -> Iterator[list[tuple[Place, Tensor]]]:
    """Inside, every flowing place that holds a tensor holds an alias of its own; yields places and aliases."""
    aliases: list[tuple[Place, Tensor]] = []
    for place in places:
        now = place.now
        if isinstance(now, Tensor):
            alias = detach_provenance(now).detach().requires_grad_(now.is_leaf and now.requires_grad)
            place.home[place.name] = alias
            aliases.append((place, alias))
    yield aliases


def hold(owner: object) -> None:
    """Takes every object that exists now out of garbage collection, for as long as an owner lives.

    A full collection would otherwise stop a step for some 0.3 s. When the last owner is gone, all are put back, what
    has become garbage in the meantime included. Owners must not be part of a cycle of references: nothing would ever
    free them.
    """
    gc.collect(1)  # a full collection takes as long as the capture itself
    gc.freeze()
    if id(owner) not in _owners:
        _owners.add(id(owner))
        weakref.finalize(owner, _release, id(owner)).atexit = False


def _release(owner: int) -> None:
    _owners.discard(owner)
    if not _owners:
        gc.unfreeze()


def aliased(args: tuple, kwargs: dict) -> tuple[tuple, dict, list[Tensor]]:
    """The same arguments with every tensor a copy of its own, and these copies in order."""
    flat, structure = tree_flatten((args, kwargs))
    flat = [_copy(value) if isinstance(value, Tensor) else value for value in flat]
    args, kwargs = tree_unflatten(flat, structure)
    return args, kwargs, [value for value in flat if isinstance(value, Tensor)]


def _copy(value: Tensor) -> Tensor:
    """A copy with the same strides; of an expanded tensor an alias."""
    if 0 in value.stride():
        return value.detach()
    copy = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)
    return copy.copy_(value)
