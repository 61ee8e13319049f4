"""Private random streams, so that runs in one process leave each other alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyro
import torch

from dlvm.distributions.pyro_lock import TURN
from dlvm.nets.arguments import whole

MOST_SEEDS = 2**32


def generator_state() -> tuple:
    """The state of torch's, NumPy's and Python's generators, and of every CUDA device in use."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    return pyro.util.get_rng_state(), cuda


def restore_generators(state: tuple) -> None:
    """Puts back what ``generator_state`` returned."""
    pyro.util.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state_all(state[1])


def drawn_state() -> list[torch.Tensor]:
    """The state of torch's generators alone, those that a captured graph draws from."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *cuda]


def same_generators(one: tuple, other: tuple) -> bool:
    """Whether two states of ``generator_state`` are the same, so that nothing was drawn between them."""
    a, b = one[0], other[0]
    numpy = all(np.array_equal(x, y) for x, y in zip(a["numpy"], b["numpy"], strict=True))
    cuda = all(torch.equal(x, y) for x, y in zip(one[1] or [], other[1] or [], strict=False))
    return numpy and cuda and torch.equal(a["torch"], b["torch"]) and a["random"] == b["random"]


def restore_drawn(state: list[torch.Tensor]) -> None:
    """Puts back what ``drawn_state`` returned."""
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state_all(state[1:])


@contextmanager
def untouched(seed: int | None = None) -> Iterator[None]:
    """Inside, randomness goes on (from ``seed`` if given); afterwards the generators are as they were before.

    No other thread has its turn inside.
    """
    if seed is not None:
        check_seed(seed)
    with TURN:
        before = generator_state()
        try:
            if seed is not None:
                _seed(int(seed))
            yield
        finally:
            restore_generators(before)


def check_seed(seed: int) -> None:
    """Raises TypeError or ValueError unless it is an integer that every generator can be seeded with."""
    whole(seed=seed)
    if not 0 <= seed < MOST_SEEDS:
        raise ValueError(f"seed must be within 0 and 2**32 - 1, got {seed}; take seed % 2**32")


def _seed(seed: int) -> None:
    """``pyro.set_rng_seed``; where torch has no accelerator, without the tracebacks that it keeps for one."""
    if torch.accelerator.current_accelerator() is not None:
        pyro.set_rng_seed(seed)
        return
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)


class Stream:
    """A random stream of its own, entered and left at will; inside, no other thread has its turn.

    Args:
        seed: where it starts; None shares the process's stream instead.

    Example:
        >>> a, b = Stream(0), Stream(0)
        >>> with a:
        ...     first = torch.rand(1)
        >>> with b:
        ...     second = torch.rand(1)
        >>> bool(first == second)
        True
    """

    def __init__(self, seed: int | None):
        self._own: tuple | None = None
        self._outer: tuple = ()  # as it was before it was entered
        if seed is not None:
            with untouched(seed):
                self._own = generator_state()

    def __enter__(self) -> Stream:
        TURN.acquire()
        if self._own is not None:
            self._outer = generator_state()
            restore_generators(self._own)
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if self._own is not None:
                self._own = generator_state()
                restore_generators(self._outer)
        finally:
            TURN.release()
