"""What must be known of the data that a model was trained on, to read a new file like them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch

from dlvm.experiments.data.arguments import check_count, check_device, check_path
from dlvm.experiments.data.loader import Loader
from dlvm.experiments.data.prepare import prepare
from dlvm.experiments.data.readers.any_file import read_found, read_table
from dlvm.experiments.data.readers.found import Found, Roles
from dlvm.experiments.data.readers.frames import frame_table, is_frame
from dlvm.experiments.data.readers.long_tables import assign
from dlvm.experiments.data.readers.objects import read_object
from dlvm.experiments.data.readers.tables import Table
from dlvm.experiments.data.rows import Kind, Rows
from dlvm.experiments.data.splits import STATIC_SEEDS, Binarize, binarized
from dlvm.inference.console import tell

VERSION = 1


def describe(loader: Loader) -> dict[str, Any]:
    """Columns, scale, words for missing entries, names of classes, ... of data, as JSON has them.

    Returns: what `read_alike` takes; `range` is the least and the greatest number in x.

    Example:
        >>> described = describe(Loader(torch.eye(3), columns=("a", "b", "c"), labels=torch.arange(3)))
        >>> described["columns"], described["kind"], described["range"]
        (['a', 'b', 'c'], 'binary', [0.0, 1.0])
    """
    if not isinstance(loader, Loader):
        raise TypeError(f"loader must be a Loader, got {type(loader).__name__}: pass one of the splits, such as train")
    rows = loader.rows
    there = rows.x[~rows.x.isnan()] if rows.missing else rows.x
    names = {"columns": rows.columns, "label_names": rows.label_names, "vocabulary": rows.vocabulary}
    return {
        "version": VERSION,
        "name": rows.name,
        "kind": loader.kind,
        "shape": list(rows.x.shape[1:]),
        "image_shape": None if rows.image_shape is None else list(rows.image_shape),
        "range": [there.min().item(), there.max().item()],
        "missing": rows.missing,
        "more": sorted(rows.more),
        "lengths": _counts(rows),
        **{name: None if words is None else list(words) for name, words in names.items()},
        "reading": {**asdict(rows.reading), "missing": list(rows.reading.missing)},
    }


def _counts(rows: Rows) -> list[list[int]] | None:
    """[length, how many sequences have it] of all lengths; None where there are none."""
    if (lengths := rows.more.get("lengths")) is None:
        return None
    return [list(pair) for pair in zip(*(part.tolist() for part in lengths.unique(return_counts=True)), strict=True)]


def read_alike(
    x: Any, description: Mapping[str, Any], batch_size: int = 100, device: str | torch.device = "cpu"
) -> Loader:
    """New rows, read as those were that the description is of: all in one loader, in order.

    Columns are found by their names, in whatever order; ids and labels come along where the columns of them are
    there. What is read otherwise than it stands in the file is said.

    Args:
        x: path of a file or a folder, or an object that `from_tensor` takes.
        description: of the data that were trained on, by `describe`.
        batch_size, device: as in `Loader`.
    Raises: ValueError if columns are missing, sizes differ, or numbers lie where those of the description cannot.

    Example:
        >>> described = describe(Loader(torch.rand(5, 2), columns=("a", "b")))
        >>> read_alike(torch.rand(3, 2), described)
        Loader(3 x 2, 1 batch of 100)
    """
    known = check_description(description)
    check_count("batch_size", batch_size)
    check_device(device)
    path = check_path("x", x) if isinstance(x, str | Path) else None
    origin = "x" if path is None else str(path)
    reading = known["reading"]
    missing = tuple(reading["missing"]) if known["missing"] else None
    kept = {field.name: reading.get(field.name) for field in fields(Roles) if field.name in reading}
    roles = replace(Roles(), **kept | {"missing": missing, "lines": _by_lines(path, known)})
    roles = replace(roles, vocabulary=None if known.get("vocabulary") is None else tuple(known["vocabulary"]))
    found = _found(x, path, roles, known, origin)
    if known["label_names"] is not None and found.labels is not None:
        found = replace(found, label_names=known["label_names"])
    kind: Kind | None = "sequence" if known["kind"] == "sequence" else None
    rows = prepare(found, roles, _scale(found, known, origin), "" if path is None else path.stem, kind)
    rows = _fitting(rows, known, origin)
    _say_new_classes(rows, known, origin)
    return Loader.of(rows, batch_size).to(device)


def _by_lines(path: Path | None, known: Mapping[str, Any]) -> bool:
    """Whether a file has a text in each line: as that of training, or where training had tokens of a data set's own."""
    reading = known["reading"]
    if path is None or known.get("vocabulary") is None or reading.get("text_column") is not None:
        return bool(reading.get("lines")) and path is not None
    return bool(reading.get("lines")) or path.suffix.lower() == ".txt"


def check_description(description: Mapping[str, Any]) -> dict[str, Any]:
    """description, if `describe` made it; ValueError otherwise."""
    needed = {"version", "kind", "shape", "image_shape", "missing", "columns", "label_names", "reading"}
    if not isinstance(description, Mapping) or not needed <= set(description):
        raise ValueError(f"description must be what describe(loader) gave, got {str(description)[:60]!r}: save it anew")
    if description["version"] != VERSION:
        raise ValueError(f"description must have version {VERSION}, got {description['version']!r}: train anew")
    return dict(description)


def _found(x: Any, path: Path | None, roles: Roles, known: Mapping[str, Any], origin: str) -> Found:
    """What the file or object holds, in the columns of the description."""
    columns = known["columns"]
    if is_frame(x):
        return _by_name(frame_table(x, origin), roles, columns)
    bare: dict[str, Any] = {"label_column": None, "index_column": None, "key": None, "lines": False}
    bare |= dict.fromkeys(("sequence_column", "time_column", "time_step", "text_column"))
    if path is None:
        return _chosen(read_object(x, replace(roles, **bare), origin), columns)
    if roles.lines:
        return read_found(path, replace(roles, **bare | {"lines": True}))
    table = None if path.is_dir() else read_table(path, replace(roles, columns=columns, key=None))
    if table is not None:
        return _by_name(table, roles, columns)
    without = replace(roles, **{**bare, "key": roles.key})
    return _chosen(read_found(path, roles if path.suffix.lower() == ".h5ad" else without), columns)


def _by_name(table: Table, roles: Roles, columns: Sequence[str] | None) -> Found:
    there: dict[str, Any] = {}
    for option, what in (("label_column", "labels"), ("index_column", "ids")):
        name = getattr(roles, option)
        there[option] = name if name in table.names else None
        if there[option] is None and name is not None and (what == "labels" or table.index is None):
            tell(f"{table.origin}: no column {name} as in training, so there are no {what}")
    roles = replace(roles, **there)
    if columns is None or not (table.headed or set(columns) <= set(table.names)):
        return assign(table, roles)
    _refuse_lacking(table.origin, table.names, columns)
    steps = (roles.sequence_column, roles.time_column)
    others = [name for name in table.names if name not in (*columns, *there.values(), *steps)]
    if others:
        tell(f"{table.origin}: {_some(others)} left out, which training did not have")
    return assign(table, replace(roles, columns=tuple(columns)))


def _chosen(found: Found, columns: Sequence[str] | None) -> Found:
    """The columns of the description, of what has names; where it has none they are taken as they come."""
    if columns is None or found.columns is None or list(found.columns) == list(columns):
        return found
    names = list(found.columns)
    _refuse_lacking(found.origin, names, columns)
    others = [name for name in names if name not in columns]
    if others:
        tell(f"{found.origin}: {_some(others)} left out, which training did not have")
    return replace(found, x=found.x[:, [names.index(name) for name in columns]], columns=columns)


def _refuse_lacking(origin: str, names: Sequence[str], columns: Sequence[str]) -> None:
    lacking = [name for name in columns if name not in names]
    if lacking:
        raise ValueError(f"{origin} lacks columns that training had, {_some(lacking)}: it has {_some(names)}; add them")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _scale(found: Found, known: Mapping[str, Any], origin: str) -> float:
    """That of training; numbers in [0, 1] that are no whole numbers have been divided already."""
    scale, x = known["reading"]["scale"] or 1.0, found.x
    if scale == 1 or known["range"][1] > 1 or not (getattr(x, "dtype", None) is not None and len(x)):
        return scale
    values = x if isinstance(x, torch.Tensor) else torch.as_tensor(x)
    if values.is_floating_point() and 0 <= values.min() and values.max() <= 1:
        tell(f"{origin}: numbers lie in [0, 1] already, and are not divided by {scale:g} as in training")
        return 1.0
    return scale


def _fitting(rows: Rows, known: Mapping[str, Any], origin: str) -> Rows:
    """The rows with the shape and the kind of training, or a refusal."""
    shape, image_shape = list(rows.x.shape[1:]), known["image_shape"]
    sizes = (
        shape[-1:] != known["shape"][-1:] if known["kind"] == "sequence" and len(shape) > 1 else shape != known["shape"]
    )
    turned = None not in (rows.image_shape, image_shape) and list(rows.image_shape or ()) != image_shape
    if (sizes or turned) and not (known["kind"] == "sequence" and len(shape) == 1):
        got, had = (rows.image_shape, image_shape) if turned else (shape, known["shape"])
        raise ValueError(f"{origin} must have rows of shape {tuple(had)} as in training, got {tuple(got or ())}")
    x, binarize = rows.x, known["reading"]["binarize"]
    whole = bool(((x == x.round()) | x.isnan()).all())
    low, high = (0.0, 1.0) if x.isnan().all() else (x[~x.isnan()].min().item(), x[~x.isnan()].max().item())
    unit, count = known["kind"] in ("binary", "grey"), known["kind"] == "count"
    if (unit and (low < 0 or high > 1)) or (count and (low < 0 or not whole)):
        what = "numbers in [0, 1]" if unit else "counts 0, 1, 2, ..."
        raise ValueError(
            f"{origin} must hold {what} as in training, got numbers from {low:g} to {high:g}: rescale them"
        )
    if known["kind"] == "binary" and not whole:
        if binarize is None:
            raise ValueError(f"{origin} must hold 0 and 1 alone as in training, got greys: round them first")
        how: Binarize = "threshold" if binarize == "threshold" else "static"
        tell(f"{origin}: greys are made 0 and 1 by {how} binarisation, as in training")
        x = binarized(x, how, STATIC_SEEDS[-1])
    vocabulary = known.get("vocabulary")
    words = None if vocabulary is None else tuple(vocabulary)
    columns = rows.columns if known["columns"] is None else tuple(known["columns"])
    return replace(
        rows,
        x=x,
        image_shape=None if image_shape is None else tuple(image_shape),
        kind=known["kind"],
        columns=columns,
        vocabulary=words,
    )


def _say_new_classes(rows: Rows, known: Mapping[str, Any], origin: str) -> None:
    new = set(rows.label_names or ()) - set(known["label_names"] or rows.label_names or ())
    if new:
        tell(f"{origin}: classes that training did not have: {_some(sorted(new))}; they are numbered behind the others")
