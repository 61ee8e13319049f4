"""Numbers that change from step to step, as tensors, so that a captured step follows them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from numbers import Real

import torch
from torch import Tensor, nn

from dlvm.nets.arguments import is_count, real, whole


class Schedule(nn.Module):
    """A number as a function of the steps made so far; counted in a buffer that moves and is saved with the module.

    Attributes:
        steps: length of the warm-up, after which the number stays as it is; 0 if it never moves.
        step: steps made so far, a 0-d tensor.

    Args:
        at: 0-d tensor of steps -> 0-d tensor; None for the number in ``value``.
        steps: see above.
        text: how it is written.
        value: a 0-d tensor.
    """

    value: Tensor  # None where ``at`` is not
    step: Tensor

    def __init__(self, at: Callable[[Tensor], Tensor] | None, steps: int, text: str, value: Tensor | None = None):
        super().__init__()
        self.at, self.steps, self.text = at, steps, text
        self.register_buffer("value", value)
        self.register_buffer("step", torch.zeros((), dtype=torch.float64))

    def __repr__(self) -> str:
        return self.text

    def forward(self) -> Tensor:
        """The number at this step, a 0-d tensor; where gradients are computed, the next call is one step later."""
        if self.at is None:
            return self.value
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
    return Schedule(partial(_linear, start, end, steps), steps, f"linear({start:g}, {end:g}, steps={steps})")


def cosine(start: float, end: float, steps: int) -> Schedule:
    """From ``start`` to ``end`` along half a cosine wave, slow at both ends.

    Example:
        >>> beta = cosine(0.0, 1.0, steps=2)
        >>> [round(beta().item(), 3) for _ in range(3)]
        [0.0, 0.5, 1.0]
    """
    _check(start, end, steps)
    return Schedule(partial(_cosine, start, end, steps), steps, f"cosine({start:g}, {end:g}, steps={steps})")


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
    whole(cycles=cycles)
    real(rise=rise)
    if not (1 <= cycles <= steps and 0 < rise <= 1):
        raise ValueError(f"cycles must be at least 1 and at most steps, rise above 0, at most 1; got {cycles}, {rise}")
    text = f"cyclical({start:g}, {end:g}, steps={steps}, cycles={cycles}, rise={rise:g})"
    return Schedule(partial(_cyclical, start, end, steps, cycles, rise), steps, text)


def constant(value: float | Tensor) -> Schedule:
    """Always the same number; a 0-d tensor is kept as it is, to be changed in place by its owner.

    Example:
        >>> constant(0.5)()
        tensor(0.5000, dtype=torch.float64)
    """
    if not isinstance(value, Tensor):
        real(value=value)
    held = value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)
    if held.dim() or held.is_complex() or not 0 <= float(held) < math.inf:
        raise ValueError(f"value must be one finite number of at least 0, got {value}")
    return Schedule(None, 0, f"{float(value):g}", held)


def _linear(start: float, end: float, steps: int, step: Tensor) -> Tensor:
    return start + (end - start) * (step / steps).clamp(max=1.0)


def _cosine(start: float, end: float, steps: int, step: Tensor) -> Tensor:
    return start + (end - start) * (1 - torch.cos(math.pi * (step / steps).clamp(max=1.0))) / 2


def _cyclical(start: float, end: float, steps: int, cycles: int, rise: float, step: Tensor) -> Tensor:
    place = (step * cycles / steps).remainder(1.0)
    return start + (end - start) * torch.where(step < steps, (place / rise).clamp(max=1.0), 1.0)


def as_schedule(value: float | Schedule, name: str) -> Schedule:
    """A schedule, or a number as a constant one; raises if it is neither."""
    if isinstance(value, Schedule):
        return value
    if isinstance(value, Real | Tensor) and not isinstance(value, bool):
        try:
            return constant(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    raise TypeError(f"{name} must be a number or a schedule, as linear(0.0, 1.0, steps=1000), got {value!r}")


def schedules_of(objective: object) -> Iterator[Schedule]:
    """The schedules of an objective that move."""
    parts = objective.modules() if isinstance(objective, nn.Module) else ()
    return (part for part in parts if isinstance(part, Schedule) and part.steps)


def warming(objective: object) -> bool:
    """Whether a warm-up of the objective goes on."""
    return any(bool(schedule.step < schedule.steps) for schedule in schedules_of(objective))


def check_warm_up(objective: object, steps: int | None) -> None:
    """Raises ValueError where a schedule of the objective is longer than a training of so many steps."""
    longest = max((schedule.steps for schedule in schedules_of(objective)), default=0)
    if steps is not None and longest > steps:
        raise ValueError(
            f"the warm-up of {objective!r} takes {longest} steps, and only {steps} are planned: it would end before "
            "the bound itself has been trained; train longer, or make the schedule shorter"
        )


def check_fresh(objective: object) -> None:
    """Raises ValueError where a schedule of the objective has moved in another run."""
    for schedule in schedules_of(objective):
        if schedule.step > 0:
            raise ValueError(
                f"the schedule of {objective!r} has made {int(schedule.step)} steps in another run; make a new "
                "objective for a new run, or pass the bound itself to go on after a warm-up"
            )


def _check(start: float, end: float, steps: int) -> None:
    real(start=start, end=end)
    if not (math.isfinite(start) and math.isfinite(end) and start >= 0 and end >= 0):
        raise ValueError(f"start and end must be finite and at least 0, got {start} and {end}")
    if not is_count(steps):
        raise ValueError(f"steps must be a positive integer, got {steps!r}")
