"""A folder that keeps the last few states of a run, each written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dlvm.inference.checkpoints.lock import locked
from dlvm.inference.console import first_line, tell
from dlvm.nets.arguments import is_count

FORMAT = 1
TENSORS, RECORD = "tensors.safetensors", "record.json"
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError)
NAME = re.compile(r"step-(\d{10,})(?:\.(\d+))?")


class Saved(NamedTuple):
    """What a checkpoint holds: tensors by name, and a record in the types of JSON."""

    path: Path
    tensors: dict[str, Tensor]
    record: dict


class CheckpointFailed(OSError):
    """A checkpoint could not be written; the message says where, why, and which one is the last good one."""


class Checkpoints:
    """The last ``keep`` states of a run, in folders named by the number of steps.

    A state is written to a draft, flushed to disk, and renamed: a process that dies while writing leaves the states
    before as they were. Weights and other tensors are safetensors, all else is JSON with a checksum; nothing that is
    read can run code. Other files in the folder are left alone.

    Args:
        folder: made if it does not exist.
        keep: how many states to keep.

    Raises:
        ValueError: ``keep`` is below 1, or ``folder`` is a file.
        CheckpointFailed: nothing can be written there.
    """

    def __init__(self, folder: str | Path, keep: int = 3):
        if not is_count(keep):
            raise ValueError(f"keep must be an integer of at least 1, got {keep!r}")
        self.folder, self.keep = Path(folder), keep
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"checkpoint must be a folder, and {self.folder} is a file; choose another name")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with suppress(BlockingIOError), self.held():
                for draft in self.folder.glob(".step-*.part"):  # of a process that died
                    shutil.rmtree(draft)
            probe = self.folder / ".step-probe.part"
            probe.mkdir()
            probe.rmdir()
        except OSError as error:
            raise CheckpointFailed(self._failure(error)) from error

    def held(self) -> AbstractContextManager[None]:
        """Inside, no other run writes here, see ``locked``."""
        return locked(self.folder, "a training run")

    def write(self, number: int, tensors: Mapping[str, Tensor], record: Mapping) -> Path:
        """Writes a state, and removes those that are too many or that it takes the place of.

        Returns:
            its folder.

        Args:
            number: of steps made; states of the same number or a higher one are of a course that was left, and go.
            tensors: by name.
            record: in the types of JSON; numbers come back bit for bit.

        Raises:
            CheckpointFailed: the disk is full, or does not let us; what was there before is as it was.
        """
        before = self._newest_first()
        again = [place(path)[1] + 1 for path in before if place(path)[0] == number]
        name = f"step-{number:010d}" + (f".{max(again)}" if again else "")
        final, draft = self.folder / name, self.folder / f".{name}.part"
        try:
            shutil.rmtree(draft, ignore_errors=True)
            _write(draft, tensors, record)
            os.replace(draft, final)
            flush(self.folder)
        except (OSError, SafetensorError) as error:
            raise CheckpointFailed(self._failure(error)) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        left = [path for path in before if place(path)[0] >= number]
        kept = [path for path in before if path not in left]
        for old in (*left, *kept[self.keep - 1 :]):
            shutil.rmtree(old, ignore_errors=True)
        return final

    def latest(self) -> Saved | None:
        """The newest state that is whole; what is damaged or foreign is named and skipped; None if there is none."""
        for path in sorted(self.folder.glob("step-*"), key=place, reverse=True):
            try:
                if NAME.fullmatch(path.name) is None:
                    raise ValueError("it is not named as a checkpoint is")
                return _read(path)
            except UNREADABLE as error:
                tell(f"checkpoint {path} is skipped: {first_line(error) or type(error).__name__}")
        return None

    def any(self) -> bool:
        """Whether there are states, whole or not."""
        return bool(self._newest_first())

    @property
    def last_good(self) -> str:
        """Where the newest state that is whole lies, in words."""
        good = next((path for path in self._newest_first() if _is_whole(path)), None)
        return f"the last good checkpoint is {good}" if good else "there is no good checkpoint"

    def _newest_first(self) -> list[Path]:
        found = [path for path in self.folder.glob("step-*") if NAME.fullmatch(path.name)]
        return sorted(found, key=place, reverse=True)

    def _failure(self, error: Exception) -> str:
        return (
            f"no checkpoint could be written to {self.folder}: {first_line(error)}; {self.last_good}: make room there "
            "or choose another folder, and run again to go on"
        )


def place(path: Path) -> tuple[int, int]:
    """The number of steps of a state, and how many times that number had been written before."""
    found = NAME.fullmatch(path.name)
    return (-1, 0) if found is None else (int(found[1]), int(found[2] or 0))


def _write(folder: Path, tensors: Mapping[str, Tensor], record: Mapping) -> None:
    folder.mkdir()
    content = save({name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()})
    text = json.dumps({"format": FORMAT, "sha256": digest_of(content), "record": record}, allow_nan=True)
    outer = json.dumps({"sha256": digest_of(text.encode()), "text": text})
    for name, written in ((TENSORS, content), (RECORD, outer.encode())):
        with (folder / name).open("wb") as file:
            file.write(written)
            file.flush()
            os.fsync(file.fileno())
    flush(folder)


def _read(path: Path) -> Saved:
    outer = json.loads((path / RECORD).read_text("utf-8"))
    if not isinstance(outer, dict) or digest_of(outer["text"].encode()) != outer["sha256"]:
        raise ValueError(f"{RECORD} does not match its checksum")
    content = json.loads(outer["text"])
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']}, expected {FORMAT}")
    written = (path / TENSORS).read_bytes()
    if digest_of(written) != content["sha256"]:
        raise ValueError(f"{TENSORS} does not match its checksum")
    return Saved(path, load(written), content["record"])


def _is_whole(path: Path) -> bool:
    try:
        _read(path)
    except UNREADABLE:
        return False
    return True


def digest_of(content: bytes) -> str:
    """The checksum of a file's content."""
    return hashlib.sha256(content).hexdigest()


def flush(path: Path) -> None:
    """Sees to it that what was renamed in a folder is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fingerprint(tensor: Tensor) -> str:
    """A checksum of a tensor's numbers, shape and type.

    Example:
        >>> fingerprint(torch.zeros(2)) == fingerprint(torch.zeros(2)) != fingerprint(torch.ones(2))
        True
    """
    value = tensor.detach().cpu().contiguous()
    head = f"{value.dtype} {tuple(value.shape)} ".encode()
    return digest_of(head + value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else head)
