"""A model with its guide: how the two are run, and what has been found out about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from pyro import poutine
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from dlvm.inference.programs.modules import (
    bare,
    evaluation_mode,
    owner_of,
    reached,
    statistics_kept,
    unwrapped,
)
from dlvm.inference.programs.parameters import own
from dlvm.inference.programs.plates import all_sample_sites, depth
from dlvm.inference.programs.randomness import untouched
from dlvm.inference.programs.statement import Statement, marked, positions, said_of

T = TypeVar("T")
_KNOWN: WeakKeyDictionary[Callable, WeakKeyDictionary[Callable, dict]] = WeakKeyDictionary()


def remembered(find: Callable[[Pair, tuple, dict], T]) -> Callable[[Pair, tuple, dict], T]:
    """A function of (pair, args, kwargs) that is called once for a pair and calls that look alike, see ``recall``."""

    @wraps(find)
    def look_up(pair: Pair, args: tuple, kwargs: dict) -> T:
        return pair.recall(find, args, kwargs)

    return look_up


def draws_nothing(*args: object, **kwargs: object) -> None:
    """The guide of a model that stands alone, or that observes everything."""


class Pair:
    """A model and a guide, run with parameters of their own, see ``own``.

    What is found out about the two by running them is kept for the programs, not for this object: another pair of the
    same ones knows it.

    Args:
        model, guide: Pyro programs of the same signature.
        like: another pair, of whose data is said what holds of these, where the model is its guide.

    Attributes:
        model, guide: what is to be called.
        said: what is said of the model's data, see ``described``; both programs' sites bear its plates.
        axes: {position: the axis along which this argument is said to have its data, None if all data share it}.

    Raises:
        TypeError: one of them is no program.
    """

    said: Statement
    axes: dict[int, int | None]

    def __init__(self, model: Callable, guide: Callable = draws_nothing, like: Pair | None = None):
        self._hold(own(model), own(guide), like)

    def _hold(self, model: Callable, guide: Callable, like: Pair | None = None) -> None:
        self.said = said_of(model) if like is None else like.said
        self.axes = positions(model, self.said) if like is None else like.axes
        self.model, self.guide = (marked(program, self.said.plates) for program in (model, guide))

    @classmethod
    def as_they_are(cls, model: Callable, guide: Callable) -> Pair:
        """Programs whose parameters stay where Pyro keeps them, as its own SVI expects."""
        pair = cls.__new__(cls)
        pair._hold(model, guide)
        return pair

    def inside(self, handler: Callable[[Callable], Callable]) -> Pair:
        """The same programs, each run inside an effect handler."""
        return self.as_they_are(handler(self.model), handler(self.guide))

    @property
    def programs(self) -> tuple[Callable, Callable]:
        return self.model, self.guide

    def unsaid(self) -> Pair:
        """The same programs, of whose arguments nothing is said."""
        pair = self.as_they_are(self.model, self.guide)
        pair.said, pair.axes = self.said._replace(axes=()), {}
        return pair

    @property
    def roots(self) -> dict[str, nn.Module]:
        """{"model" or "guide": the module that this program is or wraps, or whose method it is}; no others."""
        return {word: owner for word, owner in self.owners.items() if isinstance(owner, nn.Module)}

    @property
    def owners(self) -> dict[str, object]:
        """The same, and objects that are no modules, whose methods programs are; plain functions are left out."""
        words = ("model", self.model), ("guide", self.guide)
        return {word: owner for word, program in words if (owner := owner_of(program)) is not None}

    @property
    def has_functions(self) -> bool:
        """Whether a program is a plain function, which declares its parameters in Pyro's global store."""
        return len(self.owners) < len(self.programs)

    @property
    def shows(self) -> bool:
        """Whether what a program declares is found in Pyro's global store: it is no module, see ``own``."""
        return not all(isinstance(unwrapped(program), nn.Module) for program in self.programs)

    @property
    def modules(self) -> list[nn.Module]:
        """Those that the programs are, wrap or can get at."""
        return reached(*self.programs)

    @property
    def device(self) -> torch.device | None:
        """Where the parameters are; None where there is none."""
        parameters = (p for module in (*self.roots.values(), *self.modules) for p in module.parameters())
        return next((p.device for p in parameters), None)

    def evaluating(self) -> AbstractContextManager[None]:
        """Inside, all modules are in evaluation mode."""
        return evaluation_mode(*self.programs)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Inside, modules are as in evaluation mode, but for those that normalise over a batch: they go on to do so.

        These gather no statistics.
        """
        normalising = [part for part in self._normalising() if part.training]
        with statistics_kept(self.model), statistics_kept(self.guide), self.evaluating():
            for part in normalising:
                part.training = True
            yield

    def _normalising(self) -> list[nn.Module]:
        return [part for root in self.modules for part in root.modules() if isinstance(part, _NormBase)]

    def traces(self, args: tuple, kwargs: dict) -> tuple[poutine.Trace, poutine.Trace]:
        """Traces of the guide and of the model at what the guide drew."""
        guide_trace = poutine.trace(self.guide).get_trace(*args, **kwargs)
        return guide_trace, poutine.trace(poutine.replay(self.model, trace=guide_trace)).get_trace(*args, **kwargs)

    @remembered
    def nesting(self, args: tuple, kwargs: dict) -> int:
        """How deep the plates of both programs nest; found by one run of each, and remembered."""
        with untouched(), torch.no_grad(), poutine.block(), self.evaluating():
            return depth(all_sample_sites(*self.traces(args, kwargs)))

    def recall(self, find: Callable[[Pair, tuple, dict], T], args: tuple, kwargs: dict, again: bool = False) -> T:
        """What ``find(pair, args, kwargs)`` returns, found once for these programs and calls that look alike.

        Calls look alike if their tensors have as many dimensions, of size 1 in the same places, and the same of them as
        many rows as the first, other arguments are the same, and so are the flags and words that the programs' modules
        hold, whether they normalise over a batch, and what is said of their data.
        ``again``: find it anew.
        """
        first, second = (bare(program) for program in self.programs)
        known = _KNOWN.setdefault(first, WeakKeyDictionary()).setdefault(second, {})
        named = ((name, _look(value)) for name, value in sorted(kwargs.items()))
        given = *map(_look, args), *_as_long(args, self.axes), *named, self.said
        key = find, given, _flags(first), _flags(second), tuple(part.training for part in self._normalising())
        if again or key not in known:
            known[key] = find(self, args, kwargs)
        return known[key]


def _look(value: object) -> object:
    if isinstance(value, Tensor):
        return Tensor, tuple(size == 1 for size in value.shape)
    return value if isinstance(value, bool | int | float | str | None) else type(value)


def _as_long(args: tuple, axes: dict[int, int | None]) -> list[bool]:
    """Which tensors have as many rows as the first of them, along the axes that are said."""
    at = [(value, axes.get(i, 0)) for i, value in enumerate(args)]
    rows = [v.shape[a] if isinstance(v, Tensor) and a is not None and v.dim() > a else None for v, a in at]
    first = next((count for count in rows if count is not None), None)
    return [count is not None and count == first for count in rows]


def _flags(program: Callable) -> tuple:
    owner = owner_of(program)
    parts = owner.modules() if isinstance(owner, nn.Module) else ()
    held = (value for part in parts for name, value in vars(part).items() if name != "training")
    return tuple(value for value in held if isinstance(value, bool | str))
