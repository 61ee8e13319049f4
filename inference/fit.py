"""Training as a generator of epoch records, so that the loop stays visible in the script."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from pyro.infer import ELBO, ReweightedWakeSleep
from torch import Tensor

from inference.check import check
from inference.collapse import Lookout
from inference.epochs import Epoch, train_epoch, validate
from inference.faults import NonFinite
from inference.kinds import Baked
from inference.plates import DataCount
from inference.progress import bar
from inference.randomness import Stream, untouched
from inference.schedules import check_fresh, warming
from inference.snapshots import Snapshot
from inference.streams import Batches, check_data, to_device
from inference.svi import SVI

Adam = partial(torch.optim.Adam, lr=1e-3, fused=True)


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
    engine: str = "auto",
    precision: str = "fp32",
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
        patience: epochs without a rise of ``valid`` after which to stop; those of a warm-up do not count.
        device: where modules and batches are moved; None leaves both where they are.
        seed: of parameters' noise, shuffling and binarisation.
        progress: show a bar on a terminal.
        engine: how steps run: "auto", "eager", "captured" or "compiled", see ``SVI``.
        precision: of training, "fp32" or "bf16", see ``SVI``; ``valid`` is always in full precision.

    Raises:
        ValueError: the pair fails ``check``, a batch lies outside the likelihood's support, ``epochs`` or
            ``patience`` is below 1, ``patience`` has no ``valid``, or there is no batch.
        TypeError: ``train`` is a bare tensor or cannot be iterated again.
        NonFinite: with site, epoch and batch.
        Refused, NoCompiler, Baked: see ``SVI``.

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
    move, count = to_device(device, model, guide, objective), DataCount(model)
    with untouched():
        _check_settings(objective, train, valid, epochs, patience)
        train, valid = (data if data is None else Batches(data, move, count, seed) for data in (train, valid))
        first = next(iter(train))[0]
        kl = check(model, guide, objective, *first)
        for batches in (train, valid):
            if batches is not None:
                check_data(model, first, batches)
        steps = epochs * len(train.data) if hasattr(train.data, "__len__") else None
        svi = SVI(model, guide, optimizer, objective, clip_norm, engine, precision, steps)
        svi.prepare(*first)
        lookout = Lookout(model, guide, first if valid is None else next(iter(valid))[0])
    schedule = None if scheduler is None else scheduler(svi.optimizer)
    return _epochs(svi, train, valid, epochs, schedule, patience, Stream(seed), kl, lookout, progress)


def _epochs(svi: SVI, train: Batches, valid: Batches | None, epochs, schedule, patience, stream, kl, lookout, progress):
    saved = Snapshot(svi.model, svi.guide)
    best, since = -math.inf, 0
    with bar(progress) as shown:
        task = shown.add_task("training", total=epochs)

        def report(bound: float, value: float | None = None, completed: int | None = None) -> None:
            text = f"bound {bound:.2f}" + ("" if value is None else f", valid {value:.2f}")
            shown.update(task, description=text, completed=completed)
            shown.refresh()

        try:
            for epoch in range(1, epochs + 1):
                with stream:
                    started = time.perf_counter()
                    bound, norm = train_epoch(svi, train, epoch, report)
                    seconds = time.perf_counter() - started
                    value = None if valid is None else validate(svi, valid, epoch)
                rate = svi.optimizer.param_groups[0]["lr"]
                if schedule is not None:
                    schedule.step()
                improved = value is not None and value > best
                best, since = (value, 0) if improved else (best, 0 if warming(svi.objective) else since + 1)
                if improved or patience is None:
                    saved.take()
                report(bound, value, epoch)
                active = lookout.look(warming(svi.objective))
                yield Epoch(epoch, bound, value, seconds, rate, norm, improved, kl, svi.running, active)
                if patience is not None and since >= patience:
                    break
        except (NonFinite, Baked):
            saved.put_back()
            raise
        finally:
            if patience is not None:
                saved.put_back()


def _check_settings(
    objective: ELBO, train: Iterable, valid: Iterable | None, epochs: int, patience: int | None
) -> None:
    if not all(isinstance(number, int) and number >= 1 for number in (epochs, 1 if patience is None else patience)):
        raise ValueError(f"epochs and patience must be integers of at least 1, got {epochs!r} and {patience!r}")
    if isinstance(objective, ReweightedWakeSleep):
        raise ValueError("ReweightedWakeSleep has two losses and no bound to report; step it with SVI instead of fit")
    if patience is not None and not getattr(objective, "lower", True):
        raise ValueError(
            f"patience needs a lower bound on log p(x) to select on, and {objective!r} is none: leave patience out, or "
            "train the model on one, as Separate(model=IWAE(5), guide=...)"
        )
    check_fresh(objective)
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
