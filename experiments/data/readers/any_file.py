"""A file by the end of its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dlvm.experiments.data.readers.archives import read_archive
from dlvm.experiments.data.readers.found import Found, Roles
from dlvm.experiments.data.readers.tables import assign
from dlvm.experiments.data.readers.text import read_text

Reader = Callable[[Path, Roles], tuple[Found, Roles]]


def _archive(path: Path, roles: Roles) -> tuple[Found, Roles]:
    return read_archive(path, roles), roles


def _text(path: Path, roles: Roles) -> tuple[Found, Roles]:
    roles.refuse_key(path.name)
    table, roles = read_text(path, roles)
    return assign(table, roles), roles


READERS: dict[str, Reader] = {
    **dict.fromkeys((".npy", ".npz"), _archive),
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt", ".dat"), _text),
}
KINDS = "a .npy, .npz, .csv, .tsv or .txt file"


def is_readable(path: Path) -> bool:
    """Whether there is a reader for what bears such a name."""
    return path.suffix.lower() in READERS


def read_found(path: Path, roles: Roles) -> tuple[Found, Roles]:
    """What lies in a file, and the roles, with those that the file itself gives.

    Raises: FileNotFoundError if there is no such file; ValueError if no reader knows it, or its own reader refuses it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"path: no file {path} (--data): give the path of {KINDS}")
    if not is_readable(path):
        raise ValueError(f"path must be {KINDS}, got {path.name}: convert it by numpy.save")
    return READERS[path.suffix.lower()](path, roles)
