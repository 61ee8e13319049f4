"""What ``fit`` can be asked for, held against what it can do before anything is run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
from pyro.infer import ReweightedWakeSleep
from torch import Tensor

from dlvm.inference.console import first_line
from dlvm.inference.objectives.objective import Objective
from dlvm.inference.objectives.schedules import check_fresh
from dlvm.inference.training.run_state import Schedule
from dlvm.nets.arguments import is_count


def check_aims(objective: object, valid: Iterable | None, epochs: object, patience: object) -> None:
    """Raises ValueError where there is nothing to be trained on for so long, or to select on."""
    if not all(is_count(number) for number in (epochs, 1 if patience is None else patience)):
        raise ValueError(f"epochs and patience must be integers of at least 1, got {epochs!r} and {patience!r}")
    if isinstance(objective, ReweightedWakeSleep):
        name = f"RWS({objective.num_particles}, sleep={1 - objective.insomnia:g})"
        raise ValueError(
            f"ReweightedWakeSleep has two losses, and one weight for a whole batch: train by {name}, which has the "
            "same phases with a weight for each datum, and a bound to report; or step it with SVI"
        )
    if patience is not None and isinstance(objective, Objective) and objective.bound.side not in ("lower", "exact"):
        raise ValueError(
            f"patience needs a lower bound on log p(x) to select on, and {objective!r} is none: leave patience out, or "
            "train the model on one, as Separate(model=IWAE(5), guide=...)"
        )
    check_fresh(objective)
    if patience is not None and valid is None:
        raise ValueError("patience needs valid: early stopping looks at the validation bound")


def check_batches(name: str, data: Any) -> None:
    """Raises TypeError or ValueError unless data can be gone through again and again, and hold a batch."""
    if isinstance(data, Tensor):
        raise TypeError(
            f"{name} is a tensor; wrap it as [(x,)] for one batch, or with dlvm.experiments.data.from_tensor"
        )
    try:
        batches = iter(data)
    except TypeError as error:
        raise TypeError(
            f"{name} must be an iterable of batches, got {type(data).__name__}; pass a loader, or a list of tuples"
        ) from error
    if batches is data:
        raise TypeError(f"{name} is an iterator and would be empty after one epoch; pass a list or a loader")
    if next(batches, None) is None:
        raise ValueError(f"{name} holds no batch; pass at least one")


def check_keeping(checkpoint: object, every: object, keep: object, rollbacks: object) -> None:
    """Raises ValueError or TypeError where a run cannot be written down like this."""
    if not isinstance(checkpoint, str | os.PathLike | None) or (checkpoint is not None and not os.fspath(checkpoint)):
        raise TypeError(f"checkpoint must be a folder's path or None, got {checkpoint!r}; write checkpoint='runs/a'")
    if every is not None and not is_count(every):
        raise ValueError(f"every must be an integer of at least 1 or None, got {every!r}")
    if every is not None and checkpoint is None:
        raise ValueError("every needs checkpoint, the folder to write to")
    if not is_count(keep):
        raise ValueError(f"keep must be an integer of at least 1, got {keep!r}")
    if not is_count(rollbacks, 0):
        raise ValueError(f"rollbacks must be an integer of at least 0, got {rollbacks!r}")


def scheduled(scheduler: Callable | None, optimizer: torch.optim.Optimizer) -> Schedule | None:
    """The schedule of the learning rate.

    Raises:
        TypeError: what makes it makes no schedule that is stepped by epochs alone.
    """
    if scheduler is None:
        return None
    remedy = "write partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.99)"
    if not callable(scheduler):
        raise TypeError(f"scheduler must make a schedule from an optimizer, got {scheduler!r}; {remedy}")
    try:
        schedule = scheduler(optimizer)
    except (TypeError, ValueError) as error:
        raise TypeError(f"scheduler makes no schedule from the optimizer ({first_line(error)}); {remedy}") from error
    if not isinstance(schedule, Schedule) or isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise TypeError(
            "scheduler must make a schedule stepped by epochs alone, as ExponentialLR or CosineAnnealingLR, got "
            f"{type(schedule).__name__}; {remedy}"
        )
    return schedule
