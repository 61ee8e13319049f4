"""Your own data: a tensor, a table, or a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlvm.experiments.data.arguments import check_labels, check_path
from dlvm.experiments.data.prepare import cut, prepare
from dlvm.experiments.data.readers.annotated import is_annotated
from dlvm.experiments.data.readers.any_file import read_found
from dlvm.experiments.data.readers.found import Roles
from dlvm.experiments.data.readers.frames import is_frame
from dlvm.experiments.data.readers.objects import read_object
from dlvm.experiments.data.rows import Kind
from dlvm.experiments.data.splits import Binarize, Splits, check_options, make_splits


def from_tensor(
    x: Any,
    batch_size: int = 100,
    binarize: Binarize | None = None,
    valid: int | float = 0.1,
    test: int | float = 0.1,
    seed: int = 0,
    *,
    scale: float | None = None,
    labels: Tensor | np.ndarray | None = None,
    device: str | torch.device = "cpu",
    name: str = "",
    columns: Sequence[str] | None = None,
    index: Sequence[str] | None = None,
    more: Mapping[str, Tensor | np.ndarray] | None = None,
    label_column: str | None = None,
    index_column: str | None = None,
    split_column: str | None = None,
    missing: Sequence[str] | None = None,
    kind: Kind | None = None,
    sequence_column: str | None = None,
    time_column: str | None = None,
    time_step: float | None = None,
    text_column: str | None = None,
) -> Splits:
    """Loaders of your own rows, cut by one fixed permutation into train, valid and test.

    Returns: `Splits`; the same rows in the same part whatever the `seed`. Images become rows, and the loaders
        remember their `image_shape`.
    Args:
        x: (N, D), or images (N, H, W), (N, C, H, W) or (N, H, W, C); real numbers, finite: a tensor, an array of numpy
            or scipy.sparse, a DataFrame, an AnnData, a torch Dataset or DataLoader of x or (x, y); or a list of arrays,
            (steps,) or (steps, D) each, or of texts, which makes sequences.
        batch_size: rows in a batch.
        binarize: "static", "dynamic" or "threshold" for x / scale in [0, 1]; None leaves the numbers alone.
        valid, test: number of rows (int) or fraction of them (float).
        seed: of the shuffling and the dynamic draws.
        scale: x is divided by it; None is 255 for images of 8 bits, which is said, and 1 for all else.
        labels: (N,) integers, or text, of which the sorted words become 0, 1, ...
        device: where the data are kept.
        name: for tables and titles.
        columns, index: names of the columns and of the rows; of a frame, the columns that make x.
        label_column, index_column, split_column: of a frame, as in `from_file`.
        more: arrays of N rows by the names of a model's arguments; `lengths` make sequences of x.
        missing: what stands for an entry that is not there, such as ("-200",); NaN does as well then.
        kind: what the numbers are, where it is not to be told from them.
        sequence_column, time_column, time_step, text_column: of a frame, as in `from_file`.
    Raises: TypeError if x does not hold real numbers; ValueError if it is empty, not finite, of another
        number of dimensions, too short to split, or outside [0, 1] where it is to be binarised.

    Example:
        >>> train, valid, test = from_tensor(torch.rand(50, 3, 4), binarize="dynamic")
        >>> train.num_data, valid.num_data, test.num_data, train.image_shape
        (40, 5, 5, (3, 4))
    """
    check_options(binarize, batch_size, device, seed)
    if labels is not None and not (isinstance(labels, np.ndarray) and labels.dtype.kind in "biuU"):
        labels = check_labels(labels, len(labels) if isinstance(labels, Tensor) and labels.ndim else 0)
    named = is_frame(x) or is_annotated(x)
    roles = check_roles(label_column, index_column, split_column, columns if named else None, None, missing, None)
    roles = check_steps(roles, sequence_column, time_column, time_step, text_column)
    found = read_object(x, roles, name or "x")
    given: dict[str, Any] = {"labels": labels, "index": index, "more": more, "columns": None if named else columns}
    found = replace(found, **{what: value for what, value in given.items() if value is not None})
    rows = prepare(found, roles, scale, name, kind)
    return make_splits(cut(rows, found.part, valid, test), binarize, batch_size, device, seed)


def from_file(
    path: str | Path,
    key: str | None = None,
    *,
    batch_size: int = 100,
    binarize: Binarize | None = None,
    valid: int | float = 0.1,
    test: int | float = 0.1,
    seed: int = 0,
    scale: float | None = None,
    device: str | torch.device = "cpu",
    name: str | None = None,
    label_column: str | None = None,
    index_column: str | None = None,
    split_column: str | None = None,
    columns: Sequence[str] | None = None,
    drop_columns: Sequence[str] | None = None,
    missing: Sequence[str] | None = None,
    sequence_column: str | None = None,
    time_column: str | None = None,
    time_step: float | None = None,
    text_column: str | None = None,
    lines: bool = False,
) -> Splits:
    """Loaders of the rows of a file: arrays, a table, an annotated matrix, or a folder of images.

    Tables are .csv, .tsv and other text, or .parquet; arrays .npy or .npz; annotated matrices .h5ad. Arrays
    of an npz have the roles that their names say: x or images, labels, lengths, ..., and train_images,
    valid_images, ... are parts. Of a table the separator is found, and the first line holds names if no cell of it is
    a number. In a folder of images the sub-folders are classes, or train, valid and test. Pickles are never loaded.

    Returns: as `from_tensor`, in the parts that the file itself gives; `name` is the file's stem unless it is given.
    Args:
        path: of the file.
        key: names the array of an npz that holds several, as x, or a layer of an .h5ad.
        label_column, index_column: the columns of a table that name classes and rows.
        split_column: that says train, valid or test.
        columns, drop_columns: those that make x (all the others unless told), and those left out.
        missing: words and numbers that stand for an entry that is not there; empty cells and NaN do as well then.
        sequence_column: of a table with a line for each step, that says of which sequence it is.
        time_column: that says when a step is: a number, or a date, which becomes seconds; `times` holds how long that
            is behind the first of its sequence.
        time_step: how far steps lie apart; those that no line is about are missing entries.
        text_column: whose cells are sequences of characters, in place of numbers.
        lines: each line of the file is a sequence of characters.
        batch_size, binarize, valid, test, seed, scale, device: as in `from_tensor`.
    Raises: FileNotFoundError if there is no such file; ValueError if it cannot be read, with the line and the
        column for a table; and as `from_tensor`.
    """
    path = check_path("path", path)
    check_options(binarize, batch_size, device, seed)
    roles = check_roles(label_column, index_column, split_column, columns, drop_columns, missing, key)
    roles = check_steps(roles, sequence_column, time_column, time_step, text_column, lines)
    found = read_found(path, roles)
    rows = prepare(found, roles, scale, path.stem if name is None else name)
    return make_splits(cut(rows, found.part, valid, test), binarize, batch_size, device, seed)


def check_roles(
    label_column: str | None,
    index_column: str | None,
    split_column: str | None,
    columns: Sequence[str] | None,
    drop_columns: Sequence[str] | None,
    missing: Sequence[str] | None,
    key: str | None,
) -> Roles:
    """The options as one value, if names are text; TypeError that names the first that is not."""
    named = {"label_column": label_column, "index_column": index_column, "split_column": split_column}
    for option, value in named.items():
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{option} must be the name of a column, got {value!r:.60}: write it as text")
    chosen = None if columns is None else check_words("columns", columns)
    codes = None if missing is None else check_words("missing", missing)
    dropped = () if drop_columns is None else check_words("drop_columns", drop_columns)
    return Roles(label_column, index_column, split_column, chosen, dropped, codes, key)


def check_steps(
    roles: Roles,
    sequence_column: str | None,
    time_column: str | None,
    time_step: float | None,
    text_column: str | None,
    lines: bool = False,
) -> Roles:
    """The roles with those of sequences, if names are text and the step a time; TypeError or ValueError otherwise."""
    named: dict[str, Any] = {"sequence_column": sequence_column, "time_column": time_column, "text_column": text_column}
    for option, value in named.items():
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{option} must be the name of a column, got {value!r:.60}: write it as text")
    if time_step is not None:
        if isinstance(time_step, bool) or not isinstance(time_step, int | float | np.number):
            raise TypeError(f"time_step must be a number, got {time_step!r:.60}: give how far steps lie apart")
        if not 0 < time_step < 1e300:
            raise ValueError(f"time_step must be a time above 0, got {time_step!r:.60}: give how far steps lie apart")
        if time_column is None:
            raise ValueError(f"time_step needs time_column (--time-column), got {time_step} alone")
    if not isinstance(lines, bool):
        raise TypeError(f"lines must be True or False, got {lines!r:.60}: columns of text are text_column")
    return replace(roles, time_step=time_step, lines=lines, **named)


def check_words(name: str, words: Sequence[str]) -> tuple[str, ...]:
    """words as a tuple; TypeError if they are something else than several words."""
    if isinstance(words, str) or not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
        raise TypeError(f"{name} must be several words, got {words!r:.60}: write ('a', 'b')")
    return tuple(words)
