"""Checkpoints of a job: the first rank writes and reads them, and tells the others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from dlvm.inference.checkpoints.folder import Checkpoints, Saved, place
from dlvm.inference.distributed.job import Job, current

HEADER_BYTES = 8


class SharedCheckpoints(Checkpoints):
    """The same to each rank, whether or not it can see the folder.

    All that a run's next step depends on is equal on all ranks, so that one state is enough. On several machines the
    first rank has to find again what it wrote: they share the folder, or it starts where it did before.

    Args:
        job: this rank's.
        folder, keep: see ``Checkpoints``.

    Raises:
        ValueError, CheckpointFailed: on the first rank, as ``Checkpoints``.
        ValueError: on all, when asked for the latest state, where another rank sees later ones than the first.
        RankLost: on the others, when they are told next.
    """

    def __init__(self, job: Job, folder: str | Path, keep: int = 3):
        self.job = job
        if job.first:
            super().__init__(folder, keep)
        else:
            self.folder, self.keep = Path(folder), keep

    def held(self) -> AbstractContextManager[None]:
        return super().held() if self.job.first else nullcontext()

    def write(self, number: int, tensors: Mapping[str, Tensor], record: Mapping) -> Path:
        return super().write(number, tensors, record) if self.job.first else self.folder

    def latest(self) -> Saved | None:
        self._refuse_if_elsewhere()
        return _unpacked(self.job.told(_packed(super().latest()) if self.job.first else None))

    @property
    def last_good(self) -> str:
        return super().last_good if self.job.first else f"the first rank keeps checkpoints in {self.folder}"

    def _refuse_if_elsewhere(self) -> None:
        """As the run would begin anew on the first rank's machine, while what it did lies on another."""
        seen = torch.zeros(self.job.size, dtype=torch.int64)
        seen[self.job.rank] = max((1 + place(path)[0] for path in self._newest_first()), default=0)
        self.job.add(seen)
        last, rank = seen.max(0)
        if last > seen[0]:
            here = f"only that of step {seen[0] - 1}" if seen[0] else "none"
            raise ValueError(
                f"rank {rank} sees a checkpoint of step {last - 1} in {self.folder}, the first rank sees {here}: its "
                "machine is not the one that wrote them; share the folder between machines, start the first rank where "
                "it was, or choose another folder"
            )


def checkpoints_of(folder: str | Path, keep: int) -> Checkpoints:
    """A run's checkpoints, in a job or out of it."""
    job = current()
    return Checkpoints(folder, keep) if job is None else SharedCheckpoints(job, folder, keep)


def _packed(saved: Saved | None) -> bytes:
    if saved is None:
        return b""
    head = json.dumps({"path": str(saved.path), "record": saved.record}).encode()
    return len(head).to_bytes(HEADER_BYTES, "big") + head + save(saved.tensors)


def _unpacked(message: bytes) -> Saved | None:
    if not message:
        return None
    end = HEADER_BYTES + int.from_bytes(message[:HEADER_BYTES], "big")
    head = json.loads(message[HEADER_BYTES:end])
    return Saved(Path(head["path"]), load(message[end:]), head["record"])
