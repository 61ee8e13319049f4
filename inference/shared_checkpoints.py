"""Checkpoints of a job: the first rank writes and reads them, and tells the others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor

from inference.checkpoints import Checkpoints, Saved
from inference.distributed import Job, current

HEADER_BYTES = 8


class SharedCheckpoints(Checkpoints):
    """The same to each rank, whether or not it can see the folder.

    All that a run's next step depends on is equal on all ranks, so that one state is enough.

    Args:
        job: this rank's.
        folder, keep: see ``Checkpoints``.

    Raises:
        ValueError, CheckpointFailed: on the first rank, as ``Checkpoints``.
        RankLost: on the others, when they are told next.
    """

    def __init__(self, job: Job, folder: str | Path, keep: int = 3):
        self.job = job
        if job.first:
            super().__init__(folder, keep)
        else:
            self.folder, self.keep = Path(folder), keep

    def write(self, number: int, tensors: Mapping[str, Tensor], record: Mapping) -> Path:
        return super().write(number, tensors, record) if self.job.first else self.folder

    def latest(self) -> Saved | None:
        return _unpacked(self.job.told(_packed(super().latest()) if self.job.first else None))

    @property
    def last_good(self) -> str:
        return super().last_good if self.job.first else f"the first rank keeps checkpoints in {self.folder}"


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
