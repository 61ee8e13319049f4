"""The ways of training a case that are set side by side; each has parameters of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import cycle
from typing import Any

import torch
from torch import Tensor

from benchmarks import twins
from benchmarks.catalogue import Case

HAND, HAND_COMPILED, STOCK = "hand-written", "hand-written, torch.compile", "stock SVI"
EAGER, CAPTURED, COMPILED = "eager", "captured", "compiled"
ENGINES = (EAGER, CAPTURED, COMPILED)
UNGUARDED = "compiled, no guards or audit"
BF16 = "compiled, bf16"
LR = 1e-3

Step = Callable[[Tensor], Any]  # x -> loss


def stepper(case: Case, variant: str) -> Step:
    """x -> loss, one training step of a freshly made program.

    Pyro is imported only where a variant is made of it, so that the memory of the others can be told from it.

    Raises:
        ValueError: an unknown variant.
    """
    torch.manual_seed(0)
    if variant in (HAND, HAND_COMPILED):
        return twins.stepper(twins.make(case), compiled=variant == HAND_COMPILED, lr=LR)
    if variant == STOCK:
        return _stock(case)
    if variant in ENGINES:
        return _engine(case, variant)
    if variant == BF16:
        return _engine(case, COMPILED, precision="bf16")
    if variant == UNGUARDED:
        return _unguarded(_engine(case, COMPILED))
    known = [HAND, HAND_COMPILED, STOCK, *ENGINES, UNGUARDED, BF16]
    raise ValueError(f"variant must be one of {known}, got {variant!r}")


def _stock(case: Case) -> Step:
    import pyro
    from pyro.optim import PyroOptim

    from benchmarks.programs import make

    pyro.clear_param_store()  # a case before this one has left parameters of the same names
    program = make(replace(case, chain=False))  # with a site for each step, as Pyro's examples have it
    return pyro.infer.SVI(program.model, program.guide, PyroOptim(torch.optim.Adam, {"lr": LR}), program.objective).step


def _engine(case: Case, engine: str, precision: str = "fp32") -> Step:
    from benchmarks.programs import make
    from dlvm.inference import SVI

    program = make(case)
    adam = partial(torch.optim.Adam, lr=LR, fused=True)
    return SVI(program.model, program.guide, adam, program.objective, engine=engine, precision=precision).step


def _unguarded(step: Step) -> Step:
    """The step as it would be if nothing watched over it."""
    import pyro

    from dlvm.inference.engine import cache

    usual = cache.STEPS_BETWEEN_AUDITS

    def step_unguarded(x: Tensor) -> Any:
        cache.STEPS_BETWEEN_AUDITS = sys.maxsize
        try:
            with pyro.validation_enabled(False):
                return step(x)
        finally:
            cache.STEPS_BETWEEN_AUDITS = usual

    return step_unguarded


def caller(case: Case, variant: str) -> Callable[[], Any]:
    """One training step on the next of a few batches."""
    step, data = stepper(case, variant), cycle(batches(case))
    return lambda: step(next(data))


def batches(case: Case, count: int = 8) -> list[Tensor]:
    """Batches of binary x."""
    generator = torch.Generator().manual_seed(0)
    return [(torch.rand(case.shape, generator=generator) < 0.2).float() for _ in range(count)]
