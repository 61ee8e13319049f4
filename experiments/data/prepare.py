"""From what a reader found to rows that a loader takes: checked, scaled, and cut into three parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlvm.experiments.data.arguments import check_labels
from dlvm.experiments.data.checks import as_tensor, check_finite, check_scale, check_sizes, from_numpy
from dlvm.experiments.data.ragged import LENGTHS, silent_behind
from dlvm.experiments.data.readers.found import PARTS, Found, Roles, classes
from dlvm.experiments.data.readers.tables import is_number
from dlvm.experiments.data.rows import Kind, Reading, Rows
from dlvm.experiments.data.splits import cut_rows, split_rows
from dlvm.inference.console import say

CHANNELS = (1, 3, 4)  # grey, colours, colours and opacity


def prepare(found: Found, roles: Roles, scale: float | None, name: str, kind: Kind | None = None) -> Rows:
    """Rows of one float matrix, or of sequences where there are lengths, with all that is known of them.

    Images are flattened in the order (channels, height, width). Levels in 8 bits become greys in [0, 1] where they are
    images and no scale is given. Entries that `roles.missing` names become NaN.

    Raises: TypeError or ValueError if x holds no real numbers, is empty, not finite or of another number of dimensions.
    """
    more = _tensors(found.more)
    x = as_tensor(found.x, roles.missing is not None)
    sequence = kind == "sequence" or "lengths" in more
    check_sizes(x)
    x = x if sequence else _channels_first(x, found.origin)
    image_shape = tuple(x.shape[1:]) if x.ndim > 2 and not sequence else None
    tokens = sequence and x.ndim == 2 and not x.is_floating_point()
    if sequence:
        more.setdefault(LENGTHS, torch.full((len(x),), x.shape[1]))
        x = silent_behind(x if tokens or x.ndim != 2 else x.unsqueeze(-1), more[LENGTHS])
    divisor, missing = 1.0, None if tokens else roles.missing
    if not tokens:
        divisor = _scale(x, scale, found.origin, sequence)
        x = _divided(x if sequence else x.flatten(1), divisor, missing, found.origin)
        x = silent_behind(x, more[LENGTHS]) if sequence else x
    labels, label_names = _labels(found, len(x))
    columns, index = (each.tolist() if isinstance(each, np.ndarray) else each for each in (found.columns, found.index))
    words = {field.name for field in fields(Reading)} - {"scale", "missing", "binarize"}
    reading = Reading(divisor, roles.missing or (), **{word: getattr(roles, word) for word in words})
    vocabulary = None if found.vocabulary is None else tuple(found.vocabulary)
    known: dict[str, Any] = {"columns": columns, "index": index, "label_names": label_names, "reading": reading}
    known["vocabulary"] = vocabulary
    kind = "sequence" if sequence else kind
    return Rows(x, labels, image_shape, name, more, kind=kind, missing=missing is not None, **known)


def cut(rows: Rows, part: np.ndarray | None, valid: int | float, test: int | float) -> list[Rows]:
    """Rows for training, validation and test: as the file says, else by one fixed permutation.

    What the file does not set apart is cut from its training rows, and said.
    """
    if part is None:
        return [rows.select(r.to(rows.x.device)) for r in split_rows(len(rows.x), valid, test)]
    own = {name: torch.from_numpy(np.flatnonzero(part == name)) for name in PARTS}
    lacking = [name for name in PARTS if not len(own[name])]
    if lacking:
        sizes = {"valid": valid, "test": test}
        own |= _cut_from(own["train"], {name: sizes[name] for name in lacking})
        say(f"{rows.name}: {' and '.join(lacking)} cut from the training rows, which the file does not set apart")
    return [rows.select(own[name].to(rows.x.device)) for name in PARTS]


def in_order(count: int) -> np.ndarray:
    """The parts of rows that follow one another: a tenth at the end for test, the tenth before for validation."""
    tenth = count // 10
    return np.repeat(PARTS, [count - 2 * tenth, tenth, tenth])


def _cut_from(train: Tensor, sizes: dict[str, int | float]) -> dict[str, Tensor]:
    return dict(zip(("train", *sizes), (train[rows] for rows in cut_rows(len(train), sizes)), strict=True))


def _channels_first(x: Tensor, origin: str) -> Tensor:
    if x.ndim != 4 or x.shape[-1] not in CHANNELS or x.shape[1] in CHANNELS:
        return x
    read = f"images are read as (rows, height, width, channels), {tuple(x.shape)}"
    say(f"{Path(origin).name}: {read}, and kept channels first")
    return x.permute(0, 3, 1, 2)


def _scale(x: Tensor, scale: float | None, origin: str, sequence: bool) -> float:
    if scale is not None:
        return check_scale(scale)
    if x.ndim > 2 and not sequence and x.dtype is torch.int8 and x.min() < 0:
        raise ValueError(f"{origin}: images in int8 hold levels below 0, got {int(x.min())}: view them as uint8")
    if x.ndim > 2 and not sequence and x.dtype is torch.uint8 and x.max() > 1:
        say(f"{Path(origin).name}: images of 8 bits are divided by 255 (--scale 1 leaves them as they are)")
        return 255.0
    return 1.0


def _divided(x: Tensor, scale: float, missing: Sequence[str] | None, origin: str) -> Tensor:
    """x / scale in the default float dtype, with NaN where entries are missing."""
    dtype = torch.get_default_dtype()
    gone = None if missing is None else _gone(x, missing, origin)
    if scale == 1:
        x = x.to(dtype)
    else:  # float64 is divided as it is: its numbers may be too large for the default dtype before
        x = (x if x.dtype is torch.float64 else x.to(dtype)).div(scale).to(dtype)
    if gone is not None:
        return x.masked_fill(gone, float("nan"))
    check_finite(x, "x" if scale == 1 else f"x / {scale:g} (scale)")
    return x


def _tensors(more: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors of what are arrays of numbers; all else is refused, by its name, where rows are made."""
    if not isinstance(more, Mapping):
        raise TypeError(f"more must be a dict of arrays by name, got {type(more).__name__}: write {{'mask': mask}}")
    real = {key: isinstance(value, np.ndarray) and value.dtype.kind in "biuf" for key, value in more.items()}
    return {key: from_numpy(value) if real[key] else value for key, value in more.items()}


def _gone(x: Tensor, missing: Sequence[str], origin: str) -> Tensor:
    """Where entries are missing: NaN, or one of the numbers that stand for it."""
    gone = x.isnan()
    for word in missing:
        if is_number(word) and np.isfinite(float(word)):
            gone |= x == float(word)
    if gone.any():
        each, what = (gone.flatten(0, 1), "steps") if gone.ndim == 3 else (gone, "rows")
        counts = f"in {int(each.any(1).sum())} {what} and {int(each.any(0).sum())} columns"
        say(f"{Path(origin).name}: {int(gone.sum())} of {gone.numel()} entries are missing, {counts}")
    else:
        say(f"{Path(origin).name}: no entry is missing, though --missing {' '.join(missing)} would tell one")
    return gone


def _labels(found: Found, rows: int) -> tuple[Tensor | None, tuple[str, ...] | None]:
    labels, names = found.labels, found.label_names
    if labels is None:
        return None, None
    if not isinstance(labels, Tensor):
        labels, names = classes(found.origin, labels, names)
        labels = torch.from_numpy(labels)
    labels = check_labels(labels, rows)
    return labels, None if names is None else tuple(names)
