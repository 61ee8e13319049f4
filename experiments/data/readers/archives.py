"""Arrays of .npy and .npz files by their roles: data, labels, lengths, names, and the parts that the file is cut in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from dlvm.experiments.data.readers.arrays import open_arrays
from dlvm.experiments.data.readers.found import PART_WORDS, Found, Roles
from dlvm.inference.console import say

DATA = ("x", "X", "data", "images", "features", "counts", "inputs", "tokens", "sequences")
LABELS = ("labels", "label", "y", "Y", "targets", "classes")
ROLES = {**dict.fromkeys(DATA, "x"), **dict.fromkeys(LABELS, "labels"), "ids": "index"}
PART = re.compile(r"(train|valid|val|test)(?:_(\w+))?|(\w+)_(train|valid|val|test)")
Arrays = dict[str, np.ndarray]


def read_archive(path: Path, roles: Roles) -> Found:
    """The arrays of a file by their names: one alone is x; several are x, labels, ..., perhaps for each part.

    Names such as ``train_images``, ``x_train`` or ``valid`` cut the rows into parts. Text in ``columns``, ``index`` and
    ``label_names`` names columns, rows and classes. All others with a row per datum come along under their own names.

    Raises: ValueError if it cannot be read, or nothing says which array is x.
    """
    roles.refuse_columns(path.name)
    if path.suffix.lower() != ".npz":
        roles.refuse_key(path.name)
    arrays = open_arrays(path)
    if roles.key is not None or len(arrays) == 1:
        return Found(_named(path, arrays, roles.key), origin=str(path))
    texts = {name: arrays.pop(name).ravel().tolist() for name in ("columns", "label_names") if _is_text(arrays, name)}
    parts = _parts(arrays)
    found = _by_role(path, arrays) if parts is None else _joined(path, parts)
    if found is None:
        return Found(_named(path, arrays, None), origin=str(path))
    index = found.pop("index", None)
    known: dict[str, Any] = {
        "labels": found.pop("labels", None),
        "index": None if index is None else [str(word) for word in index],
    }
    return Found(found.pop("x"), part=found.pop("part", None), more=found, origin=str(path), **known, **texts)


def _is_text(arrays: Arrays, name: str) -> bool:
    return name in arrays and arrays[name].dtype.kind == "U"


def _named(path: Path, arrays: Arrays, key: str | None) -> np.ndarray:
    if key is None and len(arrays) == 1:
        return next(iter(arrays.values()))
    if not isinstance(key, str) or key not in arrays:
        raise ValueError(f"key must name one of the arrays of {path.name}, {sorted(arrays)}, got {key!r}")
    return arrays[key]


def _by_role(path: Path, arrays: Arrays) -> Arrays | None:
    """{role or own name: array} of those with a row per datum, if one of them is x by its name."""
    named = [ROLES.get(name, name) for name in arrays]
    if named.count("x") != 1 or len(set(named)) != len(named):
        return None
    found = dict(zip(named, arrays.values(), strict=True))
    return _aligned(path, found)


def _aligned(path: Path, found: Arrays) -> Arrays:
    rows = len(found["x"]) if found["x"].ndim else 0
    kept = {name: array for name, array in found.items() if name == "x" or array.ndim and len(array) == rows}
    kept = {
        name: array for name, array in kept.items() if array.dtype.kind in "biuf" or name in ("labels", "index", "x")
    }
    if "labels" in found and "labels" not in kept:
        raise ValueError(f"{path}: labels must be one per row of x, {rows}, got shape {found['labels'].shape}: mend it")
    if len(kept) < len(found):
        say(f"{path.name}: {', '.join(sorted(set(found) - set(kept)))} left out, without a row per datum")
    return kept


def _parts(arrays: Arrays) -> dict[str, Arrays] | None:
    """{part: {role or own name: array}}, if names cut the data into parts of which one is for training."""
    parts: dict[str, Arrays] = {}
    for name, array in arrays.items():
        match = PART.fullmatch(name)
        if match:
            part, role = (match[1], match[2] or "x") if match[1] else (match[4], match[3])
            parts.setdefault(PART_WORDS[part], {})[ROLES.get(role, role)] = array
    there = {part: found for part, found in parts.items() if "x" in found}
    return there if "train" in there and len(there) > 1 else None


def _joined(path: Path, parts: dict[str, Arrays]) -> Arrays:
    """The parts one below the other, sequences filled up to the longest, and the part of each row."""
    aligned = {part: _aligned(path, found) for part, found in parts.items()}
    everywhere = [name for name in aligned["train"] if all(name in found for found in aligned.values())]
    lost = sorted({name for found in aligned.values() for name in found} - set(everywhere))
    if lost:
        say(f"{path.name}: {', '.join(lost)} left out, not there for each part")
    joined = {}
    for name in everywhere:
        pieces = [found[name] for found in aligned.values()]
        if "lengths" in everywhere and name != "lengths":
            pieces = _filled_up(pieces)
        if len({piece.shape[1:] for piece in pieces}) > 1:
            shapes = {part: found[name].shape for part, found in aligned.items()}
            raise ValueError(f"{path}: the parts of {name} must have rows of one shape, got {shapes}: mend the file")
        joined[name] = np.concatenate(pieces)
    joined["part"] = np.repeat(list(aligned), [len(found["x"]) for found in aligned.values()])
    return joined


def _filled_up(pieces: list[np.ndarray]) -> list[np.ndarray]:
    if pieces[0].ndim < 2:
        return pieces
    most = max(piece.shape[1] for piece in pieces)
    return [np.pad(p, [(0, 0), (0, most - p.shape[1])] + [(0, 0)] * (p.ndim - 2)) for p in pieces]
