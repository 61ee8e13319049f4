"""Arrays from .npy and .npz files that may be anything: held against their headers before memory is spent on them."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

HARMLESS = 1 << 28  # bytes that an archive may unfold to, however small it is
MOST_UNFOLDING = 100  # times its own size that a larger archive may unfold to; sparse binary images take some 20
READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def open_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz by name, or the one of a .npy under "x".

    Raises: ValueError if it cannot be read, holds python objects, claims more numbers than it has, or would unfold
        to much more than an archive of data does.
    """
    try:
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                return _unfolded(file, path.stat().st_size)
            file.seek(0)
            _check_header(file, path.stat().st_size, path.name)
            file.seek(0)
            return {"x": np.load(file, allow_pickle=False)}
    except Exception as error:  # a parser of hostile bytes may fail in any way; each is told as one
        raise ValueError(
            f"{path} is no readable file of plain numpy arrays ({error}): it is damaged, or holds python "
            "objects, which are never loaded; write it anew by numpy.save or numpy.savez from plain numbers"
        ) from error


def _unfolded(file: IO[bytes], size: int) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        total = sum(member.file_size for member in members)
        if total > max(HARMLESS, MOST_UNFOLDING * size):
            raise ValueError(f"{size} bytes would unfold to {total}, more than {MOST_UNFOLDING} times as many")
        for member in members:
            with archive.open(member) as part:
                _check_header(part, member.file_size, member.filename)
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _check_header(file: IO[bytes], size: int, name: str) -> None:
    """Whether as many bytes follow as the header claims."""
    version = np.lib.format.read_magic(file)
    if version not in READERS:
        raise ValueError(f"{name} has format {version}, which plain numbers do not need")
    shape, _, dtype = READERS[version](file)
    if dtype.hasobject:
        raise ValueError(f"{name} holds python objects")
    claimed, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if claimed != there or min(shape, default=0) < 0:
        raise ValueError(f"{name} claims shape {shape} of {dtype}, {claimed} bytes, and {there} follow")


def read_csv(path: Path) -> np.ndarray:
    """The (N, D) float64 matrix of a file split at commas, with or without a header line.

    The first line is a header if no cell of it is a number; empty lines are left out.

    Raises: ValueError that names line and column (from 1) of the first cell that is no number, or the first
        line of another length, or says that the file is empty or no text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no utf-8 text ({error}): save it as csv in utf-8") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error}): give yourself the right to, or name another") from error
    lines = [(number, line.split(",")) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if lines and not any(map(_is_number, lines[0][1])):
        lines = lines[1:]
    if not lines:
        raise ValueError(f"{path} holds no line of numbers: give at least one row")
    try:
        return np.array([cells for _, cells in lines], dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{path}, {_first_fault(lines)}: mend the file or leave the column out") from error


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _first_fault(lines: list[tuple[int, list[str]]]) -> str:
    width = len(lines[0][1])
    for number, cells in lines:
        if len(cells) != width:
            return f"line {number}: expected {width} columns as in line {lines[0][0]}, got {len(cells)}"
        for column, cell in enumerate(cells, 1):
            if not _is_number(cell):
                return f"line {number}, column {column}: expected a number, got {cell.strip()!r}"
    return f"lines {lines[0][0]} to {lines[-1][0]}: expected plain numbers"
