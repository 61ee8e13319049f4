"""Training as a generator of epoch records, so that the loop stays visible in the script."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any
from weakref import finalize

import torch
from pyro.infer import ELBO
from torch import Tensor

from dlvm.inference.checkpoints.shared import checkpoints_of
from dlvm.inference.console import bar, tell
from dlvm.inference.distributed.job import RankLost
from dlvm.inference.engine.cache import Baked
from dlvm.inference.evaluation.active_units import Lookout
from dlvm.inference.objectives.schedules import warming
from dlvm.inference.programs.batches import Batches, arguments, length_of, to_device
from dlvm.inference.programs.data_checks import DataCheck
from dlvm.inference.programs.errors import NonFinite
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.randomness import Stream, untouched
from dlvm.inference.programs.rows import DataCount
from dlvm.inference.training.arguments import check_aims, check_batches, check_keeping, scheduled
from dlvm.inference.training.check import check_pair
from dlvm.inference.training.checkpointer import Keeper
from dlvm.inference.training.epochs import Epoch
from dlvm.inference.training.run import Run
from dlvm.inference.training.run_fingerprint import settings_of
from dlvm.inference.training.svi import SVI

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
    checkpoint: str | Path | None = None,
    every: int | None = None,
    keep: int = 3,
    rollbacks: int = 0,
    skip_norm: float | None = None,
) -> Iterator[Epoch]:
    """Trains a model and a guide; yields a record after each epoch.

    With ``patience``, training ends once the validation bound has not risen for that many epochs, and the best
    parameters are put back when the generator ends, however it ends. With ``seed``, the run has a random stream of
    its own: it neither sees nor disturbs what else the process draws. A step that is not finite stops the run, with
    the parameters of the last whole epoch (the best ones, with ``patience``) in place.

    With ``checkpoint``, the run is written to that folder, and the same call goes on from what lies there, bit for bit
    (to rounding with ``engine="compiled"``; "auto" compiles nothing then): epochs that were done are yielded again as
    they were recorded. Ctrl-C and SIGTERM end it after the step at hand, with a last checkpoint.

    Before the first step the model runs about ten times, and once for every further shape of a batch; two batches are
    read of ``train`` and of ``valid``. Data in memory (lists, tensors, a DataLoader over a TensorDataset) are gone
    through once, and held against the likelihood's support; others are, as their batches come for the first time.

    Under ``torchrun``, inside ``with joined():``, every rank makes the same call on the same data; each computes its
    part of every batch, on noise of its own, and the steps are those of the whole batch.

    Returns:
        a generator of ``Epoch``.

    Args:
        model, guide: Pyro programs of the same signature.
        objective: any ``pyro.infer.ELBO``; what ``train`` and ``valid`` report is its bound, or the ELBO where it has
            gradients alone, as ``TraceTailAdaptive_ELBO``.
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
        checkpoint: folder of this run's checkpoints, written after every epoch; None writes nothing.
        every: write them after so many steps, too.
        keep: how many to keep.
        rollbacks: how many times a run that is not finite goes back to the beginning of its epoch, with half the
            learning rate, before it stops.
        skip_norm: L2 norm of the whole gradient above which a step is not made; each epoch's record counts them.

    Raises:
        ValueError: the pair fails ``check``, no parameter gets a gradient, ``skip_norm`` is below those of a whole
            epoch, a batch lies outside the likelihood's
            support, ``epochs`` or ``patience`` is below 1, ``patience`` has no ``valid``, there is no batch, or
            ``checkpoint`` holds another run.
        TypeError: ``train`` is a bare tensor or cannot be iterated again.
        NonFinite: with site, epoch, batch and the last good checkpoint.
        BlockingIOError: another run is in the folder ``checkpoint``; the message says which process.
        CheckpointFailed: the disk is full or the folder cannot be written to.
        Refused, NoCompiler, Baked: see ``SVI``.

    Example:
        >>> from dlvm.guides import Diagonal, latents
        >>> from dlvm.inference import IWAE
        >>> from dlvm.models import PPCA
        >>> from dlvm.nets import MLP
        >>> model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
        >>> guide = Diagonal(latents(model, x), MLP(3, 8))
        >>> [record.epoch for record in fit(model, guide, IWAE(2), [(x,)], epochs=2)]
        [1, 2]
    """
    check_aims(objective, valid, epochs, patience)
    check_keeping(checkpoint, every, keep, rollbacks)
    pair, stream = Pair(model, guide), Stream(seed)
    move, count = to_device(device, *pair.programs, objective), DataCount(pair)
    with untouched():
        for name, data in (("train", train), ("valid", valid)):
            if data is not None or name == "train":
                check_batches(name, data)
        trained = Batches(train, move, count, seed)
        judged = None if valid is None else Batches(valid, move, count, seed)
        first = move(arguments(next(iter(trained.data))))
        kl = check_pair(pair, objective, first, {})
        check = DataCheck(pair, first)
        for batches in (trained, judged):
            if batches is not None:
                batches.check_by(check)
        number = length_of(trained.data)
        steps = None if number is None else epochs * number
        svi = SVI(model, guide, optimizer, objective, clip_norm, engine, precision, steps, skip_norm)
        own = svi.prepare(*first)
        svi.require_gradient(*first)
        lookout = Lookout(pair, first if judged is None else next(iter(judged))[0])
    schedule = scheduled(scheduler, own)
    keeper = Keeper(None if checkpoint is None else checkpoints_of(checkpoint, keep), every)
    words: dict[str, Any] = {"clip_norm": clip_norm, "patience": patience, "seed": seed, "precision": precision}
    words["skip_norm"] = skip_norm
    with ExitStack() as held, stream:
        run = Run(svi, own, trained, judged, schedule)
        if keeper.checkpoints is not None:
            held.enter_context(keeper.checkpoints.held())
            data = trained.data, None if judged is None else judged.data
            run.settings = settings_of(svi, own, schedule, first, *data, **words)
            svi.stay_exact()
            run.go_on(keeper.checkpoints)
        held = held.pop_all()
    begun: list[bool] = []
    found = _epochs(run, epochs, patience, stream, keeper, rollbacks, kl, lookout, progress, held, begun)
    finalize(found, _say_unless, begun, held)
    return found


def train(*args: Any, **settings: Any) -> list[Epoch]:
    """Trains a model and a guide, and returns the record of every epoch: the loop over ``fit`` in one call.

    Returns:
        a list of ``Epoch``.

    Args:
        *args, **settings: those of ``fit``.

    Example:
        >>> from dlvm.guides import Diagonal, latents
        >>> from dlvm.inference import IWAE
        >>> from dlvm.models import PPCA
        >>> from dlvm.nets import MLP
        >>> model, x = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0), torch.zeros(5, 3)
        >>> guide = Diagonal(latents(model, x), MLP(3, 8))
        >>> len(train(model, guide, IWAE(2), [(x,)], epochs=2))
        2
    """
    return [*fit(*args, **settings)]


train.__signature__ = signature(fit).replace(return_annotation="list[Epoch]")  # type: ignore[attr-defined]  # functions may have one


def _say_unless(begun: list[bool], held: ExitStack) -> None:
    """What happens when nobody looks at a run any more: if nobody has, nothing was trained."""
    if not begun:
        held.close()
        tell(
            "fit: nothing was trained, since nobody went through its epochs: write for epoch in fit(...), or train(...)"
        )


def _epochs(
    run: Run,
    epochs: int,
    patience: int | None,
    stream: Stream,
    keeper: Keeper,
    rollbacks: int,
    kl: dict[str, str],
    lookout: Lookout,
    progress: bool,
    held: ExitStack,
    begun: list[bool],
) -> Iterator[Epoch]:
    begun.append(True)
    with held, bar(progress) as shown:
        task = shown.add_task("training", total=epochs, completed=run.progress.epoch - 1)

        def report(bound: float, value: float | None = None) -> None:
            text = f"bound {bound:.2f}" + ("" if value is None else f", valid {value:.2f}")
            shown.update(task, description=text, completed=run.progress.epoch - 1)
            shown.refresh()

        try:
            yield from run.progress.history
            while run.progress.epoch <= epochs and (patience is None or run.progress.since < patience):
                run.keep_safe(rollbacks)
                with keeper.watching():
                    try:
                        with stream:
                            run.go_through_epoch(keeper.after_step, report)
                            value = run.validate()
                            run.end_epoch(value, kl, lookout.look(warming(run.svi.objective)), patience)
                    except NonFinite as error:
                        if run.safe is None:
                            raise type(error)(f"{error}{keeper.last_good}") from error
                        with stream:
                            run.roll_back(error)
                            keeper.save(run)
                        continue
                    with stream:
                        keeper.save(run)
                report(run.progress.history[-1].train, value)
                yield run.progress.history[-1]
        except RankLost as error:
            raise RankLost(f"{error}{keeper.last_good}") from error
        except (NonFinite, Baked):
            run.best.put_back()
            raise
        finally:
            if patience is not None:
                run.best.put_back()
