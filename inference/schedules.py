"""Numbers that change from step to step, as tensors, so that a captured step follows them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


class Schedule(nn.Module):
    """A number as a function of the steps made so far; counted in a buffer that moves and is saved with the module.

    Attributes:
        steps: length of the warm-up, after which the number stays as it is; 0 if it never moves.
        step: steps made so far, a 0-d tensor.

    Args:
        at: 0-d tensor of steps -> 0-d tensor.
        steps: see above.
        text: how it is written.
    """

    def __init__(self, at: Callable[[Tensor], Tensor], steps: int, text: str):
        super().__init__()
        self.at, self.steps, self.text = at, steps, text
        self.register_buffer("step", torch.zeros((), dtype=torch.float64))

    def __repr__(self) -> str:
        return self.text

    def forward(self) -> Tensor:
        """The number at this step, a 0-d tensor; where gradients are computed, the next call is one step later."""
        value = self.at(self.step.clone())
        if torch.is_grad_enabled():
            with torch.no_grad():
                self.step.add_(1)
        return value


def linear(start: float, end: float, steps: int) -> Schedule:
    """From ``start`` to ``end`` in a straight line of so many steps.

    References:
        Ladder Variational Autoencoders, Sonderby, Raiko, Maaloe, Sonderby, Winther, 2016, arXiv:1602.02282.

    Example:
        >>> beta = linear(0.0, 1.0, steps=2)
        >>> [beta().item() for _ in range(4)]
        [0.0, 0.5, 1.0, 1.0]
    """
    _check(start, end, steps)
    return Schedule(
        lambda step: start + (end - start) * _share(step, steps), steps, f"linear({start:g}, {end:g}, steps={steps})"
    )


def cosine(start: float, end: float, steps: int) -> Schedule:
    """From ``start`` to ``end`` along half a cosine wave, slow at both ends.

    Example:
        >>> beta = cosine(0.0, 1.0, steps=2)
        >>> [round(beta().item(), 3) for _ in range(3)]
        [0.0, 0.5, 1.0]
    """
    _check(start, end, steps)

    def at(step: Tensor) -> Tensor:
        return start + (end - start) * (1 - torch.cos(math.pi * _share(step, steps))) / 2

    return Schedule(at, steps, f"cosine({start:g}, {end:g}, steps={steps})")


def cyclical(start: float, end: float, steps: int, cycles: int = 4, rise: float = 0.5) -> Schedule:
    """``cycles`` times from ``start`` to ``end``: in each, a straight line for a share ``rise``, then a plateau.

    After ``steps``, the end of the last cycle, it stays at ``end``.

    Raises:
        ValueError: ``cycles`` is below 1, there are more cycles than steps, or ``rise`` is not between 0 and 1.

    References:
        Cyclical Annealing Schedule, Fu, Li, Liu, Gao, Celikyilmaz, Carin, 2019, arXiv:1903.10145.

    Example:
        >>> beta = cyclical(0.0, 1.0, steps=8, cycles=2)
        >>> [beta().item() for _ in range(9)]
        [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0, 1.0]
    """
    _check(start, end, steps)
    if not (isinstance(cycles, int) and 1 <= cycles <= steps and 0 < rise <= 1):
        raise ValueError(f"cycles must be at least 1 and at most steps, rise above 0, at most 1; got {cycles}, {rise}")

    def at(step: Tensor) -> Tensor:
        place = (step * cycles / steps).remainder(1.0)
        risen = (place / rise).clamp(max=1.0)
        return start + (end - start) * torch.where(step < steps, risen, 1.0)

    return Schedule(at, steps, f"cyclical({start:g}, {end:g}, steps={steps}, cycles={cycles}, rise={rise:g})")


def constant(value: float) -> Schedule:
    """Always the same number.

    Example:
        >>> constant(0.5)()
        tensor(0.5000, dtype=torch.float64)
    """
    if not math.isfinite(value):
        raise ValueError(f"value must be finite, got {value}")
    return Schedule(lambda step: torch.full_like(step, value), 0, f"{value:g}")


def as_schedule(value: float | Schedule, name: str) -> Schedule:
    """A schedule, or a number as a constant one; raises if it is neither."""
    if isinstance(value, Schedule):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not value >= 0:
            raise ValueError(f"{name} must be at least 0, got {value}")
        return constant(float(value))
    raise TypeError(f"{name} must be a number or a schedule, as linear(0.0, 1.0, steps=1000), got {value!r}")


def check_warm_up(objective: object, steps: int | None) -> None:
    """Raises ValueError where a schedule of the objective is longer than a training of so many steps."""
    parts = objective.modules() if isinstance(objective, nn.Module) else ()
    longest = max((part.steps for part in parts if isinstance(part, Schedule)), default=0)
    if steps is not None and longest > steps:
        raise ValueError(
            f"the warm-up of {objective!r} takes {longest} steps, and only {steps} are planned: it would end before "
            "the bound itself has been trained; train longer, or make the schedule shorter"
        )


def _share(step: Tensor, steps: int) -> Tensor:
    return (step / steps).clamp(max=1.0)


def _check(start: float, end: float, steps: int) -> None:
    if not (math.isfinite(start) and math.isfinite(end) and start >= 0 and end >= 0):
        raise ValueError(f"start and end must be finite and at least 0, got {start} and {end}")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"steps must be a positive integer, got {steps!r}")
