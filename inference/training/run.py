"""How far a training run has come, and the whole of it as a checkpoint."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field

import torch

from dlvm.inference.checkpoints.folder import Checkpoints, Saved
from dlvm.inference.console import tell
from dlvm.inference.objectives.schedules import warming
from dlvm.inference.programs.batches import Batches
from dlvm.inference.programs.errors import NonFinite
from dlvm.inference.training.epochs import Epoch, Sums, check_parameters, train_epoch, validate
from dlvm.inference.training.run_fingerprint import differences
from dlvm.inference.training.run_state import (
    Schedule,
    Tensors,
    loader_state,
    prefixed,
    random_state,
    restore_loader,
    restore_random,
    restore_schedule,
    restore_svi,
    schedule_state,
    slow_down,
    svi_state,
    under,
)
from dlvm.inference.training.snapshot import Snapshot
from dlvm.inference.training.svi import SVI

SLOWER = 0.5
State = tuple[Tensors, dict]


@dataclass
class Progress:
    """Where a run is: ``sums`` are of the batches done in the epoch that has not ended."""

    epoch: int = 1
    sums: Sums = field(default_factory=Sums)
    steps: int = 0
    best: float = -math.inf
    since: int = 0
    rollbacks: int = 0
    history: list[Epoch] = field(default_factory=list)


class Run:
    """What a training run is made of, and all of its state.

    Args:
        svi: prepared, so that every parameter exists.
        optimizer: of its parameters.
        train, valid: its data.
        schedule: of the learning rate.

    Attributes:
        settings: what has to be the same for a checkpoint to be its own, see ``settings_of``.
        safe: the state at the beginning of the epoch, while a rollback may be made to it.
    """

    def __init__(
        self,
        svi: SVI,
        optimizer: torch.optim.Optimizer,
        train: Batches,
        valid: Batches | None,
        schedule: Schedule | None,
    ):
        self.svi, self.optimizer, self.train, self.valid, self.schedule = svi, optimizer, train, valid, schedule
        self.settings: dict = {}
        self.progress, self.best = Progress(), Snapshot(svi.pair)
        self.safe: State | None = None
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Notes where the random streams stand: an epoch that is broken off is gone through again from here."""
        self.at_start = prefixed("train", loader_state(self.train.data))
        self.random_at_start = random_state()

    def keep_safe(self, rollbacks: int) -> None:
        """Notes all of the state at the beginning of an epoch if a rollback may be made to it."""
        if rollbacks <= self.progress.rollbacks:
            self.safe = None
        elif self.safe is None or not self.progress.sums.batches:
            self.safe = None  # a state holds no other
            self.safe = _copied(self.state())

    def go_through_epoch(self, after_step: Callable[[Run], None], report: Callable[[float], None]) -> None:
        """Makes the steps of the epoch that are still to come."""

        def after() -> None:
            self.progress.steps += 1
            after_step(self)

        train_epoch(self.svi, self.train, self.progress.epoch, self.progress.sums, report, after, self.safe is not None)

    def validate(self) -> float | None:
        return None if self.valid is None else validate(self.svi, self.valid, self.progress.epoch)

    def end_epoch(self, value: float | None, kl: dict, active: dict, patience: int | None) -> None:
        """Records the epoch, and makes ready for the next."""
        now, svi = self.progress, self.svi
        rate, sums = float(self.optimizer.param_groups[0]["lr"]), now.sums
        if self.schedule is not None:
            self.schedule.step()
        improved = False
        if value is not None and value > now.best:
            improved, now.best, now.since = True, value, 0
        else:
            now.since = 0 if warming(svi.objective) else now.since + 1
        if improved or patience is None:
            self.best.take()
        numbers = now.epoch, sums.train, value, sums.seconds, rate, sums.grad_norm, improved
        now.history.append(Epoch(*numbers, kl, svi.running, active, sums.skipped, sums.batches))
        now.epoch, now.sums = now.epoch + 1, Sums()
        self.begin_epoch()

    def roll_back(self, error: NonFinite) -> None:
        """Goes back to the safe state, the beginning of the epoch, with half the learning rate from then on."""
        count = self.progress.rollbacks + 1
        if self.safe is not None:
            self.restore(*self.safe)
        self.progress.rollbacks, self.safe = count, None
        slow_down(self.optimizer, self.schedule, SLOWER)
        rate = float(self.optimizer.param_groups[0]["lr"])
        tell(f"{error}: back to the beginning of epoch {self.progress.epoch}, with a learning rate of {rate:.3g}")

    def state(self) -> State:
        """All that the next step depends on, not copied."""
        tensors, optimizer = svi_state(self.svi, self.optimizer)
        tensors = {**tensors, **prefixed("loader", self.at_start)}
        if self.valid is not None:
            tensors |= prefixed("loader/valid", loader_state(self.valid.data))
        for word, state in self.best.parts().items():
            tensors |= prefixed(f"best/{word}", state)
        numbers = {}
        for word, (found, record) in {"now": random_state(), "epoch": self.random_at_start}.items():
            tensors |= prefixed(f"random/{word}", found)
            numbers[word] = record
        schedule = None if self.schedule is None else schedule_state(self.schedule)
        safe, safe_record = ({}, None) if self.safe is None else self.safe
        progress = dataclasses.asdict(self.progress)
        parts = {"optimizer": optimizer, "random": numbers, "schedule": schedule, "progress": progress}
        return tensors | prefixed("safe", safe), parts | {"safe": safe_record, "settings": self.settings}

    def restore(self, tensors: Tensors, record: dict) -> None:
        """Goes back, or on, to a state; inside the run's own random stream."""
        restore_svi(self.svi, self.optimizer, tensors, record["optimizer"])
        if self.schedule is not None:
            restore_schedule(self.schedule, record["schedule"])
        for word, state in self.best.parts().items():
            state.clear()
            state.update(under(tensors, f"best/{word}"))
        kept = record["progress"]
        history = [Epoch(**_epoch(epoch)) for epoch in kept["history"]]
        self.progress = Progress(**kept | {"history": history, "sums": Sums(**kept["sums"])})
        self.safe = None if record["safe"] is None else (under(tensors, "safe"), record["safe"])

        def streams(train: Tensors, moment: str) -> None:
            if self.valid is not None:
                restore_loader(self.valid.data, under(tensors, "loader/valid"))
            restore_loader(self.train.data, train)
            restore_random(under(tensors, f"random/{moment}"), record["random"][moment])

        streams(under(tensors, "loader/train"), "epoch")
        self.begin_epoch()
        self.train.resume_at(self.progress.sums.batches, lambda: streams(loader_state(self.train.data), "now"))

    def go_on(self, checkpoints: Checkpoints) -> Saved | None:
        """Restores the newest checkpoint, if there is one.

        Raises:
            ValueError: it is of another run.
        """
        saved = checkpoints.latest()
        if saved is None:
            if checkpoints.any():
                tell(f"checkpoint folder {checkpoints.folder}: no checkpoint there is whole: training starts anew")
            return None
        theirs, ours = saved.record["settings"], json.loads(json.dumps(self.settings))
        if differing := list(differences(theirs, ours)):
            more = f"; and {len(differing) - 3} more" if len(differing) > 3 else ""
            raise ValueError(
                f"checkpoint folder {checkpoints.folder} holds another run ({'; '.join(differing[:3])}{more}); choose "
                "another folder, or make the settings the same to go on"
            )
        self.restore(saved.tensors, saved.record)
        return saved

    def save(self, checkpoints: Checkpoints) -> None:
        """Writes the state, once the parameters are known to be finite."""
        check_parameters(self.svi, self.progress.epoch, self.progress.sums.batches)
        checkpoints.write(self.progress.steps, *self.state())


def _copied(state: State) -> State:
    """A state that goes on being what it was."""
    tensors, record = state
    return {name: value.detach().clone() for name, value in tensors.items()}, deepcopy(record)


def _epoch(record: dict) -> dict:
    return record | {"active": {name: tuple(counts) for name, counts in record["active"].items()}}
