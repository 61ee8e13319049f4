"""The best of a family for each datum, found by climbing the bound while the model stays as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pyro
import torch
from torch import Tensor

from dlvm.guides.refined import Differentiable
from dlvm.inference.engine.engine import Engine
from dlvm.inference.engine.optimizer import QuickStep
from dlvm.inference.engine.recording import Outcome
from dlvm.inference.programs.pair import Pair

SLOW = 0.1


def climb(
    pair: Pair,
    args: tuple,
    objective: Differentiable,
    steps: int,
    rate: float,
    tick: Callable[[float], None],
    watch: Callable[[], Tensor],
) -> Tensor:
    """Trains a guide on a batch by Adam, whose rate falls in a straight line to zero over the second half of the steps.

    Returns:
        what ``watch`` returned at the mean of the parameters over the third quarter of the steps.

    Args:
        pair: of which the model takes part, and is not trained. Of the guide, a module, all parameters that require a
            gradient are, those in its ``shared``, if it has that, at a tenth of the rate.
        args: the batch.
        objective: a lower bound, of which the guide maximises its estimate.
        steps, rate: of Adam.
        tick: told what share of the work was done.
        watch: see above.

    Raises:
        ValueError: the guide has no parameter to train, or the bound is not finite.
    """
    guide = pair.roots["guide"]
    parameters: list[Tensor] = [p for p in guide.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError(f"local guide {type(guide).__name__} has no parameter that requires a gradient")

    def slopes(*args: Any) -> Outcome:
        loss = objective.differentiable_loss(*pair.programs, *args)
        return [loss.item()], list(torch.autograd.grad(loss, parameters, allow_unused=True))

    engine = Engine(slopes, (*pair.modules, objective), "auto", steps, finite=False)
    shared = {id(p) for p in getattr(guide, "shared", ())}
    slow, quick = ([p for p in parameters if (id(p) in shared) == wanted] for wanted in (True, False))
    groups = [(group, start) for group, start in ((quick, rate), (slow, SLOW * rate)) if group]
    optimizer = torch.optim.Adam([dict(params=group, lr=start) for group, start in groups], fused=True)
    advance, seen = QuickStep(optimizer), None
    sums, number = [torch.zeros_like(p) for p in parameters], 0
    with torch.enable_grad(), pyro.validation_enabled(False):
        for step in range(steps):
            if steps // 2 <= step <= 3 * steps // 4:
                torch._foreach_add_(sums, [p.detach() for p in parameters])
                number += 1
            if step == 3 * steps // 4:
                seen = _at([total / number for total in sums], parameters, watch)
            (loss,), gradients = engine(*args)
            if not math.isfinite(loss):
                raise ValueError(
                    f"the bound of the local guide became {-loss} at step {step}: start from a guide that fits, or "
                    "pass a smaller rate"
                )
            _step(parameters, gradients, advance)
            for group, (_, start) in zip(optimizer.param_groups, groups, strict=True):
                group["lr"] = start * min(1.0, 2 - 2 * (step + 1) / steps)
            tick(1 / steps)
    return cast(Tensor, seen)  # of at least one step


def _step(parameters: list[Tensor], gradients: list[Tensor | None], advance: QuickStep) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    advance()
    for parameter in parameters:
        parameter.grad = None


@torch.no_grad()
def _at(values: list[Tensor], parameters: list[Tensor], watch: Callable[[], Tensor]) -> Tensor:
    """What ``watch`` returns with other values of the parameters."""
    kept = [p.clone() for p in parameters]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
    found = watch()
    for parameter, value in zip(parameters, kept, strict=True):
        parameter.copy_(value)
    return found


@contextmanager
def frozen(pair: Pair) -> Iterator[None]:
    """Inside, Pyro may let parameters require gradients; afterwards they do where they did before."""
    before = [(p, p.requires_grad) for module in pair.modules for p in module.parameters()]
    try:
        yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)
