"""Runs of a pair under one seed, and what they leave: for comparing one engine with another bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import pyro
import pytest
import torch
from pyro.infer import ELBO
from torch import Tensor

from dlvm.inference import SVI
from dlvm.inference.programs.modules import modules_of

Adam = partial(torch.optim.Adam, lr=1e-2, foreach=False, fused=False)
Still = partial(torch.optim.SGD, lr=0.0, momentum=1.0)


class Run(NamedTuple):
    """Losses of all steps; parameters, buffers, optimizer state and random state after them; and the last engine."""

    losses: list
    state: dict[str, Tensor]
    running: str


def state(svi: SVI) -> dict[str, Tensor]:
    """Every tensor that a step may change, copied."""
    found = {"random": torch.get_rng_state()}
    for word, part in zip(("model", "guide", "objective"), (svi.model, svi.guide, svi.objective), strict=True):
        for module in modules_of(part):
            found |= {f"{word}.{name}": value for name, value in module.state_dict(keep_vars=True).items()}
    for store in (pyro.get_param_store()._params, (svi._step._kept or {"params": {}})["params"]):
        found |= {f"store.{name}": value for name, value in store.items()}
    if svi.optimizer is not None:
        for number, kept in enumerate(svi.optimizer.state.values()):
            found |= {f"optimizer.{number}.{name}": value for name, value in kept.items()}
    return {name: torch.as_tensor(value).detach().clone() for name, value in found.items()}


def run(
    make: Callable,
    objective: Callable[[], ELBO],
    engine: str,
    steps: int = 5,
    between: Callable[..., None] | None = None,
    optimizer: Callable = Adam,
    **settings,
) -> Run:
    """Makes a pair and steps it; ``between(step, svi)`` is called before each step, and may return other arguments."""
    pyro.clear_param_store()
    pyro.set_rng_seed(3)
    model, guide, args = make()
    svi = SVI(model, guide, optimizer, objective(), engine=engine, **settings)
    pyro.set_rng_seed(5)
    losses = []
    for step in range(1, steps + 1):
        given = between(step, svi) if between else None
        losses.append(svi.step(*(args if given is None else given)))
    return Run(losses, state(svi), svi.running)


def differing(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    """Names of tensors that are not the same bit for bit."""
    return [name for name in sorted({*a, *b}) if name not in a or name not in b or not torch.equal(a[name], b[name])]


def same_by_both_engines(*args, **kwargs) -> tuple[Run, Run]:
    """Runs by "eager" and by "captured": everything that they leave is equal to the last bit, losses to rounding."""
    eager, captured = (run(*args[:2], engine, *args[2:], **kwargs) for engine in ("eager", "captured"))
    assert (eager.running, captured.running) == ("eager", "captured")
    assert differing(eager.state, captured.state) == []
    assert torch.allclose(torch.tensor(eager.losses), torch.tensor(captured.losses), rtol=1e-6, atol=1e-6)
    return eager, captured


def gradient(*args, **kwargs) -> Tensor:
    """The sum of the gradients of a run's steps, which leave the parameters where they are."""
    left = run(*args, optimizer=Still, **kwargs).state
    return torch.cat([value.flatten() for name, value in left.items() if name.endswith("momentum_buffer")])


def slow_but(quick: str, cases: Iterable[str]) -> list:
    """Parameters: all cases, those that are not named (by ", ") marked slow."""
    named = quick.split(", ")
    return [case if case in named else pytest.param(case, marks=pytest.mark.slow) for case in cases]
