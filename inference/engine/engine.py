"""Which of three ways a step runs: by Pyro, from its captured graph, or compiled."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from typing import Any

import pyro
from pyro.poutine.runtime import am_i_wrapped
from torch import Tensor

from dlvm.inference.console import say
from dlvm.inference.engine.backends import NoCompiler, install, install_compiled
from dlvm.inference.engine.cache import MOST_RETRIES, Baked, Kind
from dlvm.inference.engine.capture import Captured, aliased, hold
from dlvm.inference.engine.keys import keyed, stranger
from dlvm.inference.engine.module_state import SCALARS, Place, State
from dlvm.inference.engine.policy import STEPS_TO_REPAY_CAPTURE, Policy
from dlvm.inference.engine.recording import Outcome, Refused
from dlvm.inference.programs.randomness import generator_state, restore_generators

ENGINES = ("auto", "eager", "captured", "compiled")
MOST_GRAPHS = 16
MANY_KINDS = 50


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
        ValueError: an unknown mode.
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
        stores: Callable[[], list[dict[str, Any]]] = list,
        careful: Callable[..., Outcome] | None = None,
        finite: bool = True,
        prompt: bool = True,
        name: str | None = None,
    ):
        if mode not in ENGINES:
            raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {mode!r}")
        self.function, self.careful = function, careful or function
        self.parts, self.stores = tuple(parts), stores
        self.mode, self.finite, self._say = mode, finite, partial(_say, name)
        self.policy = Policy(mode, steps, prompt, self._say)
        self.done = self.lost = self.created = 0
        self.flowing, self.python = set[tuple[int, str]](), Counter[str]()
        self.given_up: str | None = None
        self.kinds: OrderedDict[Hashable, Kind] = OrderedDict()
        self.state: State  # from the first call on
        self._called = False
        self._values: list[Any] | None = None
        self._scalars: tuple[Any, ...] = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Outcome:
        self.done += 1
        self._follow()
        if self.mode == "eager" or self.given_up is not None or am_i_wrapped():
            return self._eager(args, kwargs)
        tensors, key = keyed(args, kwargs)
        if key is None:
            self._object(stranger(args, kwargs))
            return self._eager(args, kwargs)
        (kind := self._kind((key, self._scalars))).seen += 1
        captured = kind.captured
        if captured is None and self.policy.prices(kind, self.done):
            return self.policy.price(kind, partial(self._eager, args, kwargs))
        if captured is None and self.policy.captures(kind, self.done, any(k.captured for k in self.kinds.values())):
            captured = self._capture(kind, args, kwargs)
        if captured is None or not captured.accepts():
            return self._eager(args, kwargs)
        return self._replay(kind, captured, tensors, args, kwargs)

    @property
    def running(self) -> str:
        """What calls of the most frequent kind run on: "eager", "captured" or "compiled"."""
        usual = max(self.kinds.values(), key=lambda kind: kind.seen, default=None)
        return "eager" if usual is None or usual.captured is None or self.given_up else usual.runs

    def _follow(self) -> None:
        """Keeps up with what has changed on the modules since the last call."""
        if not self._called or not self.state.intact():
            self._renew()
        values = self.state.values()
        if values != self._values:
            if not all(isinstance(value, SCALARS) for value in values):
                self._renew()
                values = self.state.values()
            self._values, self._scalars = values, tuple(values)
            self.state.moving = None

    def _renew(self) -> None:
        """Looks at what the modules hold; graphs that were captured with other things are gone."""
        self.state, self._values, self._called = State(self.parts, self.stores(), self.flowing), None, True
        self.lost += any(kind.captured is not None for kind in self.kinds.values())
        self.kinds.clear()
        if self.mode == "auto" and self.lost > max(MOST_RETRIES, self.done / STEPS_TO_REPAY_CAPTURE):
            self._give_up("tensors of the modules are replaced again and again; change them in place (copy_, fill_)")

    def _give_up(self, reason: str) -> None:
        """From now on eager; where an engine was asked for by name, an error."""
        self.given_up = reason
        self._object(reason)

    def _object(self, reason: object) -> None:
        if self.mode in ("captured", "compiled"):
            raise Refused(f"the step cannot be captured: {reason}; use engine='auto' or 'eager'")
        self._say(f"eager, since the step cannot be captured: {reason}")

    def _kind(self, key: Hashable) -> Kind:
        if key not in self.kinds:
            self.kinds[key] = Kind()
            self.created += 1
            if self.created == MANY_KINDS and self.created > self.done / 2:
                self._say("eager, since Python numbers differ from call to call; make them 0-d tensors")
        self.kinds.move_to_end(key)
        if len(self.kinds) > MOST_GRAPHS:
            self.kinds.popitem(last=False)
        return self.kinds[key]

    def _eager(self, args: tuple, kwargs: dict) -> Outcome:
        with self.state.watched() as filled:
            outcome = self.careful(*args, **kwargs)
        if filled:
            self._take_in(filled)
        return outcome

    def _take_in(self, filled: list[Place]) -> None:
        """Places that the program fills flow from now on, unless Python values lie there: those cannot be replayed."""
        values = [place for place in filled if isinstance(place.now, SCALARS) and place.now is not None]
        self.python.update(place.name for place in values)
        new = {place.key for place in filled if place not in values} - self.flowing
        if new:
            self.flowing |= new
            self._renew()
        name, count = (self.python.most_common(1) or [("", 0)])[0]
        if count >= MOST_RETRIES and self.mode != "eager" and self.given_up is None:
            self._give_up(f"the program changes {name}, a Python value, at every step")

    def _capture(self, kind: Kind, args: tuple, kwargs: dict) -> Captured | None:
        try:
            captured = Captured(self.function, self.state, args, kwargs)
            install(captured, captured.replay)
        except Refused as error:
            if self._works(args, kwargs):
                self._refuse(kind, error)
            return None
        kind.captured = captured
        if any(example.is_cuda for example in captured.examples) and captured.run is captured.replay:
            self._say("captured without a CUDA graph, since something it touches lies on the CPU")
        hold(self)
        if self.mode == "compiled" and not any(other.runs == "compiled" for other in self.kinds.values()):
            self._compile(kind, captured)
        return captured

    def _works(self, args: tuple, kwargs: dict) -> bool:
        """Whether the ordinary way takes this call; where it does not, the batch is at fault and not the program."""
        before, (args, kwargs, _) = generator_state(), aliased(args, kwargs)
        try:
            with self.state.restored():
                self.careful(*args, **kwargs)
        except Exception:  # the ordinary call, which comes next, raises it again
            return False
        finally:
            restore_generators(before)
        return True

    def _refuse(self, kind: Kind, error: Refused) -> None:
        kind.retries += 1
        kind.seen = 0
        if not error.for_now or kind.retries >= MOST_RETRIES:
            kind.refused = True
            self._object(error)

    def _replay(self, kind: Kind, captured: Captured, tensors: list[Tensor], args: tuple, kwargs: dict) -> Outcome:
        kind.replays += 1
        if kind.audited_now:
            return self._audit(kind, captured, tensors, args, kwargs)
        outcome, held = kind.replay(captured, tensors, self.finite)
        if outcome is None:
            return self._redo(kind, args, kwargs, held)
        if not kind.decided and self.policy.compiles_now(kind, self.done):
            self._compile(kind, captured)
        self.policy.reconsider(kind)
        return outcome

    def _redo(self, kind: Kind, args: tuple, kwargs: dict, held: bool) -> Outcome:
        """The call once more, by Pyro: for the message if something is wrong, for the result if nothing is."""
        if held:
            with pyro.validation_enabled(True):
                return self._eager(args, kwargs)
        outcome = self._eager(args, kwargs)
        if kind.trip():
            self._say("eager, since values that Python reads from tensors differ from step to step")
        return outcome

    def _audit(self, kind: Kind, captured: Captured, tensors: list[Tensor], args: tuple, kwargs: dict) -> Outcome:
        expected, gap = kind.audit(captured, tensors, lambda: self._eager(args, kwargs))
        if not gap:
            return expected
        what = (
            "something that the programs read has changed since it was captured: a number in a closure, a global or a "
            "list, or a tensor there that was replaced by another; make it a 0-d buffer of the module and change it "
            "by fill_, or pass engine='eager'"
        )
        if kind.replays == 1:  # no step has been made from the graph
            kind.captured = None
            self._refuse(kind, Refused(f"what it computes is not what the programs compute on other data; {what}"))
            return expected
        raise Baked(f"step {self.done}: the captured step differs from the programs by a share of {gap:.1e}, so {what}")

    def _compile(self, kind: Kind, captured: Captured) -> None:
        kind.decided = True
        try:
            install_compiled(captured)
        except NoCompiler as error:
            if self.mode == "compiled":
                raise NoCompiler(f"the step cannot be compiled: {error}; use engine='auto' or 'captured'") from error
            self._say(f"captured, since the step cannot be compiled: {error}")
            return
        kind.runs, kind.before, kind.seconds = "compiled", kind.seconds, float("inf")
        hold(self)


def _say(name: str | None, line: str) -> None:
    """A notice about an engine, which must not be held by what it is made of."""
    if name is not None:
        say(f"{name}: {line}")
