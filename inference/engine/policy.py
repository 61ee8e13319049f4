"""Which steps are worth a capture or a compilation: what each costs, and when the steps to come repay it."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode

from dlvm.inference.engine.cache import Kind, Prospects
from dlvm.inference.engine.recording import Outcome

STEPS_TO_REPAY_CAPTURE = 100
SIGHTINGS_OF_AN_ODD_SHAPE = 50
STEPS_TO_TIME = 20
STEPS_TO_COMPARE = 40  # an ordinary call was made beside six of them; none beside the last
COLD_SECONDS, SECONDS_PER_OPERATION, WARM_SECONDS = 8.0, 0.017, 2.5
SAVED_PER_OPERATION, SAVED_SHARE = 3e-6, 0.25
CAPTURE_PER_COUNT = 32  # what an operation takes in a capture, by what it takes to count one: of VAEs and chains
REPLAY_PER_COUNT = 0.15  # what one takes in a replay beside itself, by the same measure
LEAST_SAVED = 0.02  # of an ordinary step, where measuring finds less
TRIALS = 200


class Policy:
    """Decides when calls of one kind are captured, and when their graph is compiled.

    Args:
        mode, steps, prompt: see ``Engine``.
        say: gives a notice.

    Attributes:
        compiles: whether anything may be compiled.
    """

    def __init__(self, mode: str, steps: int | None, prompt: bool, say: Callable[[str], None]):
        self.mode, self.steps, self.prompt, self.say = mode, steps, prompt, say
        self.compiles = mode != "captured"

    def captures(self, kind: Kind, done: int, odd: bool) -> bool:
        """Whether to capture calls of this kind now.

        Args:
            kind: without a graph.
            done: calls of all kinds so far.
            odd: whether another kind has a graph already.
        """
        if kind.refused or kind.seen < 2:
            return False
        if self.mode != "auto":
            return True
        if self.steps is not None and self.steps - done < STEPS_TO_REPAY_CAPTURE:
            self.say("eager, since so few steps do not repay a capture")
            return False
        if self.steps is not None and kind.repaid is not None:
            to_come = int(kind.seen / done * (self.steps - done))
            if to_come < kind.repaid:
                self.say(f"eager, since a capture repays after {kind.repaid} steps, and {to_come} are to come")
                return False
        return kind.seen > SIGHTINGS_OF_AN_ODD_SHAPE or (self.prompt and not odd)

    def prices(self, kind: Kind, done: int) -> bool:
        """Whether to look now what a capture of this kind takes: in two calls, where it may come, before it is paid."""
        known = self.steps is not None and self.steps - done >= STEPS_TO_REPAY_CAPTURE
        return self.mode == "auto" and known and kind.seen in (2, 3) and kind.repaid is None and not kind.refused

    def price(self, kind: Kind, ordinary: Callable[[], Outcome]) -> Outcome:
        """An ordinary call: of the first its time is taken, of the second its operations are counted, and theirs."""
        if kind.ordinary is None:
            started = time.process_time()
            outcome = ordinary()
            kind.ordinary = time.process_time() - started
            return outcome
        counting, inside = _costs_of_counting()
        with _Operations() as operations:
            outcome = ordinary()
        replayed = operations.seconds + (REPLAY_PER_COUNT * counting - inside) * operations.number
        saved = max(kind.ordinary - replayed, LEAST_SAVED * kind.ordinary, 1e-6)
        kind.repaid = math.ceil(CAPTURE_PER_COUNT * counting * operations.number / saved)
        return outcome

    def compiles_now(self, kind: Kind, done: int) -> bool:
        """Whether to compile the graph of a kind of which that has not been settled.

        It is once the steps to come repay it, or, if nobody knows how many come, those that went would have.
        """
        if not self.compiles:
            kind.decided = True
            return False
        if (prospects := prospects_of(kind)) is None:
            return False
        to_come = kind.replays if self.steps is None else int(kind.seen / done * (self.steps - done))
        if to_come >= prospects.steps:
            self.say(f"compiling, which takes about {prospects.cost:.0f} s")
            return True
        if self.steps is not None:
            kind.decided = True
            self.say(f"captured; compiling repays after {prospects.steps} steps, {to_come} are to come")
        return False

    def reconsider(self, kind: Kind) -> None:
        """Gives up a graph that has turned out to take longer than what it replaced, as no estimate can exclude."""
        captured = kind.captured
        if self.mode != "auto" or captured is None:
            return
        if kind.runs == "captured" and kind.replays == STEPS_TO_COMPARE and kind.seconds > kind.usual:
            kind.captured, kind.refused = None, True
            times = kind.seconds / kind.usual
            self.say(f"eager, since a captured step took {times:.2f} times as long as an ordinary one")
        if kind.runs == "compiled" and kind.compiled == STEPS_TO_COMPARE and kind.seconds > kind.before:
            captured.run, kind.runs = captured.before, "captured"
            self.say(f"captured, since a compiled step took {kind.seconds / kind.before:.2f} times as long")


class _Operations(TorchDispatchMode):
    """Counts what is computed inside, and how long that takes."""

    def __init__(self) -> None:
        super().__init__()
        self.number, self.seconds = 0, 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.number += 1
        started = time.process_time()
        found = func(*args, **(kwargs or {}))
        self.seconds += time.process_time() - started
        return found


def _costs_of_counting() -> tuple[float, float]:
    """Seconds by which an operation takes longer where it is counted, in all and by its own clock, on this machine."""
    one = torch.zeros(1)

    def trials() -> float:
        started = time.process_time()
        for _ in range(TRIALS):
            one.add(1.0)
        return (time.process_time() - started) / TRIALS

    trials()
    plain = trials()
    with _Operations():
        one.add(1.0)
    with _Operations() as operations:
        counted = trials()
    return max(counted - plain, 1e-6), max(operations.seconds / operations.number - plain, 0.0)


def prospects_of(kind: Kind) -> Prospects | None:
    """What compiling its graph costs and how many steps repay that; None until enough replays were timed."""
    if kind.prospects is None and kind.captured is not None and kind.replays >= STEPS_TO_TIME:
        graph = kind.captured.graph
        cost = seconds_to_compile(graph.module, kind.captured.examples, graph.size)
        kind.prospects = Prospects(cost, math.ceil(cost / seconds_saved(graph.size, kind.seconds)))
    return kind.prospects


def seconds_to_compile(module: fx.GraphModule, arguments: list[Tensor], size: int) -> float:
    """An estimate: compilers take some time per operation, far less where they have seen this graph before."""
    if marker_of(module, arguments).exists():
        return WARM_SECONDS
    return COLD_SECONDS + SECONDS_PER_OPERATION * size


def seconds_saved(size: int, step: float) -> float:
    """An estimate of what one compiled step saves against one of ``step`` seconds."""
    return min(max(SAVED_PER_OPERATION * size, SAVED_SHARE * step), 0.8 * step)


def marker_of(module: fx.GraphModule, arguments: list[Tensor]) -> Path:
    """A file in inductor's own cache that tells that this graph was compiled there."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    shapes = [(tuple(a.shape), a.stride(), str(a.dtype), str(a.device)) for a in arguments]
    text = f"{torch.__version__} {torch.get_num_threads()} {shapes} {module.code}"
    return Path(os.path.join(cache_dir(), "captured", hashlib.sha256(text.encode()).hexdigest()))
