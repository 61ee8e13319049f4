"""Training by the clock: steps until a time is used up, whatever a step costs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice, repeat
from statistics import median
from typing import Literal

import pyro
import torch
from pyro import infer
from torch import nn

from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.options.common import adam
from dlvm.experiments.runs.report import counted
from dlvm.experiments.setups.setup import fresh_pair
from dlvm.experiments.setups.vae import VAESetup
from dlvm.guides import Diagonal
from dlvm.inference import ELBO, NonFinite, Objective, evaluate, fit
from dlvm.inference.programs.pair import Pair
from dlvm.inference.training.snapshot import Snapshot

STEPS_AT_A_TIME = 20
ENDLESS = 10**9
ROUNDING = 1e-9


@dataclass(frozen=True)
class TimeOptions:
    """What every run of a comparison has, the same for all."""

    seconds: float = 8.0
    """Processor time for the steps of each run, the same for all."""
    epochs: int | None = None
    """Instead of seconds: passes over the training data, the same number for all."""
    lr: float = 2e-3
    """Learning rate of Adam."""
    engine: Literal["captured", "eager"] = "captured"
    """How steps run, the same for all; the time of a capture counts."""
    looks: int = 20
    """How often in a run log p(x) is estimated on validation data; the best state is kept."""
    valid_particles: int = 50
    """Importance samples per validation datum."""

    @property
    def effort(self) -> str:
        """Time or epochs, in words."""
        return f"{self.seconds:g} s" if self.epochs is None else counted(self.epochs, "epoch")


class Pieces:
    """A few batches of a loader at a time, each piece where the last one ended, so that a clock is read in between.

    Args:
        loader: the data, passed through again and again.
        size: batches in a piece.

    Example:
        >>> import torch
        >>> pieces = Pieces(Loader(torch.arange(3.0)[:, None], batch_size=1), 2)
        >>> [[x.item() for x, in pieces] for _ in range(2)]
        [[0.0, 1.0], [2.0, 0.0]]
    """

    def __init__(self, loader: Loader, size: int):
        self.loader, self.size = loader, size
        self.batches = chain.from_iterable(repeat(loader))

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[tuple]:
        return islice(self.batches, self.size)

    def seeded(self, seed: int) -> Pieces:
        return Pieces(self.loader.seeded(seed), self.size)


def timed_fit(
    model: Callable,
    guide: Callable,
    objective: infer.ELBO,
    data: Splits,
    optimizer: Callable,
    seconds: float,
    epochs: int | None = None,
    looks: int = 20,
    valid_particles: int = 50,
    seed: int = 0,
    engine: str = "captured",
) -> Iterator[dict]:
    """Trains for a time and looks at log p(x) of validation data meanwhile; the state of the best look is put back.

    The time is the calling thread's on the processor: on an idle machine what a clock on the wall says, and on a busy
    one free of the waiting. Looking stops the clock; the capture of the step does not. ``Pieces`` make it exact to a
    few steps.

    Returns:
        an iterator of records, one per look: ``seconds``, ``epochs`` and ``steps`` so far, the median ``ms_per_step``,
        ``log_px`` by importance sampling and ``elbo`` of the validation data, ``train``, the objective's bound over the
        latest steps; nats per datum.

    Args:
        model, guide: Pyro programs of the same signature.
        objective: any ``pyro.infer.ELBO``; what is selected on is log p(x), the same for all.
        data: train and valid are used.
        optimizer: parameters -> torch optimizer.
        seconds: of steps.
        epochs: instead of seconds.
        looks: how many, at equal distances.
        valid_particles: importance samples per datum at a look.
        seed: of noise and shuffling.
        engine: how steps run, see ``dlvm.inference.SVI``.

    Raises:
        ValueError, NonFinite, Refused, Baked: see ``dlvm.inference.training.fit``.
    """
    size = STEPS_AT_A_TIME if epochs is None else len(data.train)
    pieces, most = Pieces(data.train, size), epochs or ENDLESS
    records = fit(model, guide, objective, pieces, None, most, optimizer, seed=seed, progress=False, engine=engine)
    best, highest, spent, seen, costs = Snapshot(Pair(model, guide)), -math.inf, 0.0, 0, []
    used = 0.0
    while used < 1:
        started = time.thread_time()
        record = next(records)
        costs.append(time.thread_time() - started)
        spent += costs[-1]
        done = record.epoch * size
        used = spent / seconds if epochs is None else record.epoch / epochs
        due = int(used * looks + ROUNDING)
        if used < 1 and due == seen:
            continue
        seen = due
        found = evaluate(model, guide, data.valid, num_particles=valid_particles)
        if found.log_px > highest:
            highest = found.log_px
            best.take()
        progress = {"seconds": spent, "epochs": done / len(data.train), "steps": done}
        cost = 1000 * median(costs) / size
        yield progress | {"ms_per_step": cost, "log_px": found.log_px, "elbo": found.elbo, "train": record.train}
    best.put_back()


@dataclass
class Racer:
    """A trained pair and its looks; ``error`` says why it stopped, if a step was not finite."""

    model: nn.Module
    guide: nn.Module
    looks: list[dict]
    error: str | None = None


def race(config: TimeOptions, seed: int, pair: Callable, objective: Objective, data: Splits) -> Racer:
    """Trains a fresh pair for the time, or the epochs, that every run of a comparison has.

    The clock is the calling thread's on the processor, so runs may follow one another or share a machine, one thread
    each. What a process does at its first capture only is done before.

    Args:
        config: see ``timed_fit``.
        seed: of the pair's start, the noise and the shuffling.
        pair: makes model and guide.
        objective: what is maximised.
        data: train and valid are used.
    """
    warm_up(config.engine)
    pyro.set_rng_seed(seed)
    model, guide = pair()
    effort = (config.seconds, config.epochs, config.looks, config.valid_particles)
    racer = Racer(model, guide, [])
    try:
        for look in timed_fit(model, guide, objective, data, adam(config.lr), *effort, seed, config.engine):
            racer.looks.append(look)
    except NonFinite as error:
        racer.error = str(error)
    return racer


@cache
def warm_up(engine: str) -> None:
    """Trains a tiny pair for a moment, once in a process."""
    loader = Loader(torch.eye(4), batch_size=2)
    model, guide = fresh_pair(VAESetup(z_dim=1, hidden=(2,)), loader, Diagonal)
    data = Splits(loader, loader, loader)
    list(timed_fit(model, guide, ELBO(), data, torch.optim.Adam, 0.01, looks=1, valid_particles=2, engine=engine))


def cost_of(looks: list[dict]) -> dict[str, float]:
    """What a training took in all."""
    return {key: looks[-1][key] for key in ("seconds", "steps", "epochs", "ms_per_step")}


def reached(row: dict) -> str:
    """A finished run in a few words."""
    return f"log p(x) {row['log_px']:.2f}   ELBO {row['elbo']:.2f}   {row['steps']} steps"
