"""Training by the clock: steps until a time is used up, whatever a step costs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice, repeat
from statistics import median

from pyro.infer import ELBO

from experiments.data import Loader, Splits
from inference import evaluate, fit
from inference.snapshots import Snapshot

STEPS_AT_A_TIME = 20
ENDLESS = 10**9
ROUNDING = 1e-9


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
    objective: ELBO,
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
        engine: how steps run, see ``inference.SVI``.

    Raises:
        ValueError, NonFinite, Refused, Baked: see ``inference.fit``.
    """
    size = STEPS_AT_A_TIME if epochs is None else len(data.train)
    pieces, most = Pieces(data.train, size), epochs or ENDLESS
    records = fit(model, guide, objective, pieces, None, most, optimizer, seed=seed, progress=False, engine=engine)
    best, highest, spent, seen, costs = Snapshot(model, guide), -math.inf, 0.0, 0, []
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
