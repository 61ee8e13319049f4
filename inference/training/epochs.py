"""One pass over the data: steps or validation, and the record of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

from dlvm.inference.programs.batches import Batches
from dlvm.inference.programs.errors import NonFinite, broken_parameter, check_constraints
from dlvm.inference.programs.modules import statistics_kept
from dlvm.inference.programs.notes import note
from dlvm.inference.programs.randomness import untouched
from dlvm.inference.training.svi import SVI

VALIDATION_SEED = 1
SECONDS_BETWEEN_REPORTS = 0.5


@dataclass(frozen=True)
class Epoch:
    """What one epoch of ``fit`` came to.

    Attributes:
        epoch: from 1.
        train: the objective's bound, nats per datum, mean over the epoch's steps.
        valid: the objective's bound on the validation data, nats per datum; None without such data.
        seconds: of training.
        lr: learning rate.
        grad_norm: L2 norm of the whole gradient, mean over the epoch's steps.
        best: whether ``valid`` is the highest so far.
        kl: how each latent site's KL is got, {site: "analytic" | "Monte Carlo"}.
        engine: what steps ran on at its end: "eager", "captured" or "compiled".
        active: {latent site: (active units, all units)} on a batch; a unit is active if its posterior mean varies over
            data by more than 0.01. Empty where the guide cannot draw particles in parallel.
        skipped: how many of its steps were not made, the gradient's norm being above ``skip_norm``.
        steps: how many batches it had.
    """

    epoch: int
    train: float
    valid: float | None
    seconds: float
    lr: float
    grad_norm: float
    best: bool
    kl: dict[str, str]
    engine: str
    active: dict[str, tuple[int, int]] = field(default_factory=dict)
    skipped: int = 0
    steps: int = 0

    def __str__(self) -> str:
        valid = "" if self.valid is None else f"   valid {self.valid:.3f}{'*' if self.best else ' '}"
        bounds = f"train {self.train:.3f}{valid} nats per datum"
        asleep = [f"{name} {active}/{units}" for name, (active, units) in self.active.items() if active < units]
        flag = f"   active {', '.join(asleep)}" if asleep else ""
        flag += f"   skipped {self.skipped} of {self.steps} steps" if self.skipped else ""
        return f"epoch {self.epoch:4d}   {bounds}   {self.seconds:.2f} s   lr {self.lr:.2g}{flag}"


@dataclass
class Sums:
    """What an epoch has come to so far: bounds in nats, data, gradient norms, batches, steps skipped, and seconds."""

    bound: float = 0.0
    data: float = 0.0
    norms: float = 0.0
    batches: int = 0
    skipped: int = 0
    seconds: float = 0.0

    @property
    def train(self) -> float:
        """The mean bound, nats per datum."""
        return self.bound / self.data

    @property
    def grad_norm(self) -> float:
        """The mean gradient norm."""
        return self.norms / self.batches


def train_epoch(
    svi: SVI,
    batches: Batches,
    epoch: int,
    sums: Sums,
    report: Callable[[float], None],
    after: Callable[[], None],
    careful: bool = False,
) -> None:
    """Steps through the batches to come, adds to the sums, and calls ``after`` when a step is done.

    ``careful`` runs the programs once more at the end, so that what the last step broke is found before it is kept.
    """
    started = last = time.perf_counter()
    before, latest = sums.seconds, None
    for args, count in batches:
        with _placed(f"epoch {epoch}, batch {sums.batches + 1}"):
            share = batches.count.share(args)
            sums.bound -= share * _loss_of_step(svi, args)
        sums.data += share * count
        sums.norms += svi.grad_norm
        sums.batches, sums.skipped, latest = sums.batches + 1, sums.skipped + svi.skipped, args
        sums.seconds = before + time.perf_counter() - started
        after()
        if time.perf_counter() - last > SECONDS_BETWEEN_REPORTS:
            last = time.perf_counter()
            report(sums.train)
    check_parameters(svi, epoch, sums.batches)
    if sums.batches and sums.skipped == sums.batches:
        raise ValueError(
            f"skip_norm is {svi.skip_norm:g}, below every gradient of epoch {epoch}: all {sums.batches} steps were "
            f"skipped, with norms of {sums.grad_norm:.3g} on average; raise it to several times that"
        )
    if careful and latest is not None:  # a run may go on behind the last step of an epoch
        with _placed(f"epoch {epoch}, batch {sums.batches}"):
            check_constraints(svi.pair, latest)


def _loss_of_step(svi: SVI, args: tuple) -> float:
    """Makes a step; its loss, or that of the ELBO at the particles of the step where the objective has none."""
    if svi.has_loss:
        return cast(float, svi.step(*args))  # `fit` takes no objective of two losses
    with untouched(), statistics_kept(svi.model), statistics_kept(svi.guide):
        loss = cast(float, svi.evaluate_loss(*args))
    svi.step(*args)
    return loss


def check_parameters(svi: SVI, epoch: int, batch: int) -> None:
    """Raises NonFinite where a step has put a parameter out of bounds."""
    place = broken_parameter(svi.pair)
    if place is not None:
        raise NonFinite(f"epoch {epoch}, batch {batch}: {place} is not finite after the step; try a smaller lr")


def validate(svi: SVI, batches: Batches, epoch: int) -> float:
    """The bound on validation data in nats per datum, with the same particles in every epoch."""
    total = number = 0.0
    with untouched(VALIDATION_SEED), svi.pair.evaluating():
        for position, (args, count) in enumerate(batches, start=1):
            with _placed(f"epoch {epoch}, validation batch {position}"):
                share = batches.count.share(args)
                total -= share * svi.evaluate_loss(*args)  # type: ignore[operator]  # see ``train_epoch``
            number += share * count
    return total / number


@contextmanager
def _placed(where: str) -> Iterator[None]:
    """Says in which batch something went wrong: in the words of a fault in numbers, and below those of other errors."""
    try:
        yield
    except NonFinite as error:
        raise type(error)(f"{where}: {error}") from error
    except Exception as error:
        note(error, f"in {where}")
        raise
