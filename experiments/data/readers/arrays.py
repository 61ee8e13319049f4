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
