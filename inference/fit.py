"""Training as a generator of epoch records, so that the loop stays visible in the script."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from pyro.infer import ELBO, ReweightedWakeSleep
from torch import Tensor

from inference.check import check
from inference.faults import NonFinite, broken_parameter
from inference.modes import evaluation_mode
from inference.objectives import Renyi
from inference.plates import DataCount
from inference.progress import bar
from inference.randomness import Stream, untouched
from inference.snapshots import Snapshot
from inference.streams import arguments, check_data, to_device
from inference.svi import SVI

Adam = partial(torch.optim.Adam, lr=1e-3, fused=True)
VALIDATION_SEED = 1


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
    """

    epoch: int
    train: float
    valid: float | None
    seconds: float
    lr: float
    grad_norm: float
    best: bool
    kl: dict[str, str]

    def __str__(self) -> str:
        valid = "" if self.valid is None else f"   valid {self.valid:.3f}{'*' if self.best else ' '}"
        bounds = f"train {self.train:.3f}{valid} nats per datum"
        return f"epoch {self.epoch:4d}   {bounds}   {self.seconds:.2f} s   lr {self.lr:.2g}"


def fit(
    model: Callable,
    guide: Callable,
    objective: ELBO,
    train: Iterable,
    valid: Iterable | None = None,
    epochs: int = 100,
    optimizer: Callable[[Iterable[Tensor]], torch.optim.Optimizer] = Adam,
    scheduler: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler] | None = None,
    clip_norm: float | None = None,
    patience: int | None = None,
    device: str | torch.device | None = None,
    seed: int | None = None,
    progress: bool = True,
) -> Iterator[Epoch]:
    """Trains a model and a guide; yields a record after each epoch.

    With ``patience``, training ends once the validation bound has not risen for that many epochs, and the best
    parameters are put back when the generator ends, however it ends. With ``seed``, the run has a random stream of
    its own: it neither sees nor disturbs what else the process draws. A step that is not finite stops the run, with
    the parameters of the last whole epoch (the best ones, with ``patience``) in place.

    Returns:
        a generator of ``Epoch``.

    Args:
        model, guide: Pyro programs of the same signature.
        objective: any ``pyro.infer.ELBO``; what ``train`` and ``valid`` report is its bound.
        train: iterated anew each epoch; batches are tuples of the programs' arguments. A loader with ``seeded(seed)``
            is reseeded.
        valid: the same, for the validation bound; its particles are the same in every epoch.
        epochs: how many at most.
        optimizer: parameters -> torch optimizer, Adam(lr=1e-3) unless told: ``partial(torch.optim.Adamax, lr=5e-4)``.
        scheduler: optimizer -> learning-rate schedule, stepped once per epoch.
        clip_norm: largest L2 norm of the whole gradient.
        patience: epochs without a rise of ``valid`` after which to stop.
        device: where modules and batches are moved; None leaves both where they are.
        seed: of parameters' noise, shuffling and binarisation.
        progress: show a bar on a terminal.

    Raises:
        ValueError: the pair fails ``check``, a batch lies outside the likelihood's support, ``epochs`` or
            ``patience`` is below 1, ``patience`` has no ``valid``, or there is no batch.
        TypeError: ``train`` is a bare tensor or cannot be iterated again.
        NonFinite: with site, epoch and batch.

    Example:
        >>> from guides import Diagonal, latents
        >>> from inference import IWAE
        >>> from models import PPCA
        >>> from nets import MLP
        >>> model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
        >>> guide = Diagonal(latents(model, x), MLP(3, 8))
        >>> [record.epoch for record in fit(model, guide, IWAE(2), [(x,)], epochs=2)]
        [1, 2]
    """
    move, count = to_device(device, model, guide), DataCount(model)
    if seed is not None:
        train, valid = (data.seeded(seed) if hasattr(data, "seeded") else data for data in (train, valid))
    with untouched():
        _check_settings(objective, train, valid, epochs, patience)
        first = move(arguments(next(iter(train))))
        kl = check(model, guide, objective, *first)
        for data in (train, valid):
            if data is not None:
                check_data(model, first, data, move, count)
        svi = SVI(model, guide, optimizer, objective, clip_norm=clip_norm)
        svi.prepare(*first)
    schedule = None if scheduler is None else scheduler(svi.optimizer)
    return _epochs(svi, train, valid, epochs, schedule, patience, Stream(seed), move, count, kl, progress)


def _epochs(svi, train, valid, epochs, schedule, patience, stream, move, count, kl, progress) -> Iterator[Epoch]:
    saved = Snapshot(svi.model, svi.guide)
    best, since = -math.inf, 0
    with bar(progress) as shown:
        task = shown.add_task("training", total=epochs)
        try:
            for epoch in range(1, epochs + 1):
                with stream:
                    started = time.perf_counter()
                    bound, norm = _train(svi, train, epoch, count, move, shown, task)
                    seconds = time.perf_counter() - started
                    value = None if valid is None else _validate(svi, valid, epoch, count, move)
                rate = svi.optimizer.param_groups[0]["lr"]
                if schedule is not None:
                    schedule.step()
                improved = value is not None and value > best
                best, since = (value, 0) if improved else (best, since + 1)
                if improved or patience is None:
                    saved.take()
                shown.update(task, completed=epoch, description=_text(bound, value))
                shown.refresh()
                yield Epoch(epoch, bound, value, seconds, rate, norm, improved, kl)
                if patience is not None and since >= patience:
                    break
        except NonFinite:
            saved.put_back()
            raise
        finally:
            if patience is not None:
                saved.put_back()


def _train(svi: SVI, train: Iterable, epoch: int, count: DataCount, move, shown, task) -> tuple[float, float]:
    """One pass over the data: the mean bound in nats per datum, and the mean gradient norm."""
    total = number = norms = steps = 0
    last = time.perf_counter()
    for steps, batch in enumerate(train, start=1):
        args = move(arguments(batch))
        try:
            total -= svi.step(*args)
        except NonFinite as error:
            raise NonFinite(f"epoch {epoch}, batch {steps}: {error}") from error
        number += count(args)
        norms += svi.grad_norm
        if time.perf_counter() - last > 0.5:
            last = time.perf_counter()
            shown.update(task, description=_text(total / number, None))
            shown.refresh()
    place = broken_parameter(svi.model, svi.guide)
    if place is not None:
        raise NonFinite(
            f"epoch {epoch}, batch {steps}: {place} is not finite after the step; try a smaller learning rate"
        )
    return total / number, norms / steps


def _validate(svi: SVI, valid: Iterable, epoch: int, count: DataCount, move) -> float:
    """The bound on the validation data in nats per datum, with the same particles in every epoch."""
    total = number = 0
    with untouched(VALIDATION_SEED), evaluation_mode(svi.model, svi.guide):
        for position, batch in enumerate(valid, start=1):
            args = move(arguments(batch))
            try:
                total -= svi.evaluate_loss(*args)
            except NonFinite as error:
                raise NonFinite(f"epoch {epoch}, validation batch {position}: {error}") from error
            number += count(args)
    return total / number


def _text(bound: float, valid: float | None) -> str:
    return f"bound {bound:.2f}" + ("" if valid is None else f", valid {valid:.2f}")


def _check_settings(
    objective: ELBO, train: Iterable, valid: Iterable | None, epochs: int, patience: int | None
) -> None:
    if not all(isinstance(number, int) and number >= 1 for number in (epochs, 1 if patience is None else patience)):
        raise ValueError(f"epochs and patience must be integers of at least 1, got {epochs!r} and {patience!r}")
    if isinstance(objective, ReweightedWakeSleep):
        raise ValueError("ReweightedWakeSleep has two losses and no bound to report; step it with SVI instead of fit")
    if patience is not None and isinstance(objective, Renyi) and objective.alpha < 0:
        raise ValueError(f"patience needs a lower bound to select on, but {objective} bounds nothing; use alpha >= 0")
    if patience is not None and valid is None:
        raise ValueError("patience needs valid: early stopping looks at the validation bound")
    for name, data in (("train", train), ("valid", valid)):
        if isinstance(data, Tensor):
            raise TypeError(
                f"{name} is a tensor; wrap it as [(x,)] for one batch, or with experiments.data.from_tensor"
            )
        if data is not None and iter(data) is data:
            raise TypeError(f"{name} is an iterator and would be empty after one epoch; pass a list or a loader")
        if data is not None and next(iter(data), None) is None:
            raise ValueError(f"{name} holds no batch; pass at least one")
