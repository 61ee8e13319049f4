"""A file or a folder by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dlvm.experiments.data.readers.annotated import read_h5ad
from dlvm.experiments.data.readers.archives import read_archive
from dlvm.experiments.data.readers.found import Found, Roles
from dlvm.experiments.data.readers.frames import read_parquet
from dlvm.experiments.data.readers.image_folder import read_image_folder
from dlvm.experiments.data.readers.long_tables import assign
from dlvm.experiments.data.readers.tables import Table
from dlvm.experiments.data.readers.text import read_text
from dlvm.experiments.data.readers.writing import read_lines

TABLES: dict[str, Callable[[Path, Roles], Table]] = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt", ".dat"), read_text),
    **dict.fromkeys((".parquet", ".pq"), read_parquet),
}
ARRAYS: dict[str, Callable[[Path, Roles], Found]] = {".npy": read_archive, ".npz": read_archive, ".h5ad": read_h5ad}
KINDS = "a .npy, .npz, .csv, .tsv, .txt, .parquet or .h5ad file, or a folder of images"


def is_readable(path: Path) -> bool:
    """Whether there is a reader for what bears such a name."""
    return path.suffix.lower() in {**TABLES, **ARRAYS} or path.is_dir()


def read_found(path: Path, roles: Roles) -> Found:
    """What lies in a file or a folder.

    Raises: FileNotFoundError if there is no such file; ValueError if no reader knows it, or its own reader refuses it.

    Example:
        >>> read_found(Path("none.csv"), Roles())
        Traceback (most recent call last):
        FileNotFoundError: path: no file none.csv (--data): give the path of a .npy, .npz, .csv, .tsv, ...
    """
    if path.is_dir():
        return read_image_folder(path, roles)
    if roles.lines:
        _refuse_none(path)
        roles.refuse_columns(f"lines of {path.name}")
        return read_lines(path, roles.vocabulary)
    table = read_table(path, roles)
    return ARRAYS[path.suffix.lower()](path, roles) if table is None else assign(table, roles)


def read_table(path: Path, roles: Roles) -> Table | None:
    """The table that a file holds, before columns have roles; None if it holds arrays."""
    _refuse_none(path)
    suffix = path.suffix.lower()
    if not is_readable(path):
        raise ValueError(f"path must be {KINDS}, got {path.name}: convert it by numpy.save")
    if suffix not in TABLES:
        return None
    roles.refuse_key(path.name)
    return TABLES[suffix](path, roles)


def _refuse_none(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"path: no file {path} (--data): give the path of {KINDS}")
