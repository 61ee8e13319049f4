"""What a reader finds in a file or an object, before it is checked, scaled and cut."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

MOST_ENTRIES = 1 << 31  # 8 GB as float32
PARTS = ("train", "valid", "test")
PART_WORDS = {
    "train": "train", "training": "train", "fit": "train",
    "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid",
    "test": "test", "testing": "test", "eval": "test",
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """Arrays as they lie in a file, row by row, with the names that the file gives.

    Attributes:
        x: (N, D), images (N, H, W), (N, C, H, W) or (N, H, W, C), or with lengths sequences (N, T, D).
        labels: (N,) numbers or text.
        columns, index, label_names: names of the columns of x, of the rows, of the classes 0, 1, ...
        more: other arrays of N rows.
        vocabulary: what whole numbers stand for.
        part: "train", "valid" or "test" for each row, where the file says.
        origin: what messages call it.
    """

    x: Any
    labels: Any = None
    columns: Sequence[str] | None = None
    index: Sequence[str] | None = None
    label_names: Sequence[str] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    vocabulary: Sequence[str] | None = None
    part: np.ndarray | None = None
    origin: str = "x"


@dataclass(frozen=True)
class Roles:
    """Which columns of a table, or which array of a file, are what; as the options of the same names.

    Attributes: `label_column`, `index_column`, `split_column`: names of columns; `columns`: those that make x, all
    others unless told; `drop_columns`: those left out; `missing`: words for an entry that is not there; `key`: an array
    of an npz. Of sequences `sequence_column`, `time_column` and `time_step` of a table with a line for each step;
    `text_column` with text in it; `lines`, whether each line of a file is text; `vocabulary`, what tokens stand for.
    """

    label_column: str | None = None
    index_column: str | None = None
    split_column: str | None = None
    columns: tuple[str, ...] | None = None
    drop_columns: tuple[str, ...] = ()
    missing: tuple[str, ...] | None = None
    key: str | None = None
    sequence_column: str | None = None
    time_column: str | None = None
    time_step: float | None = None
    text_column: str | None = None
    lines: bool = False
    vocabulary: tuple[str, ...] | None = None

    def refuse_columns(self, what: str) -> None:
        """Raise ValueError if columns are named, of something that has none."""
        of_sequences = ("sequence_column", "time_column", "time_step", "text_column")
        for name in ("label_column", "index_column", "split_column", "columns", "drop_columns", *of_sequences):
            value = getattr(self, name)
            if value:
                option = "--" + name.replace("_", "-")
                raise ValueError(f"{name} ({option}) names columns of a table, got {value!r} for {what}: leave it out")

    def refuse_key(self, what: str) -> None:
        """Raise ValueError if an array is named, of something that is no archive of them."""
        if self.key is not None:
            raise ValueError(f"key={self.key!r} names an array of a .npz file, got {what}: leave it out")


def needed(module: str, origin: str, part: str | None = None) -> Any:
    """An optional module, or a part of it; ValueError that names the package to install where it is not there."""
    try:
        return importlib.import_module(module if part is None else f"{module}.{part}")
    except ImportError as error:
        package = {"PIL": "pillow"}.get(module, module)
        raise ValueError(f"{origin} needs {package} to be read: pip install {package}") from error


def dense(x: Any, origin: str) -> np.ndarray:
    """A matrix, sparse or not, with all its zeros; ValueError if they would fill the memory."""
    if not sparse.issparse(x):
        return np.asarray(x)
    if x.shape[0] * x.shape[1] > MOST_ENTRIES:
        raise ValueError(
            f"{origin} holds {x.shape[0]} x {x.shape[1]} entries, more than {MOST_ENTRIES} with its zeros: choose "
            "columns first, such as genes that vary"
        )
    return x.toarray()


def part_words(origin: str, column: str, words: Sequence[str]) -> np.ndarray:
    """ "train", "valid" or "test" for each row, from words for them; ValueError for another word.

    Example:
        >>> part_words("x.csv", "split", ["Train", "val", "test"]).tolist()
        ['train', 'valid', 'test']
    """
    known = [PART_WORDS.get(word.strip().lower()) for word in words]
    if None in known:
        k = known.index(None)
        raise ValueError(
            f"split_column {column!r} of {origin} must say train, valid or test in each row, got {words[k]!r} in row "
            f"{k} (from 0): mend the file, or leave --split-column out"
        )
    if "train" not in known:
        raise ValueError(f"split_column {column!r} of {origin} must say train in some rows, got {sorted(set(words))}")
    return np.array(known)


def classes(origin: str, labels: Any, names: Sequence[str] | None = None) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Labels as whole numbers, and the names of the classes where they are text.

    Returns: (N,) int64 and None for numbers; for text the places in the sorted names, which are returned as well.
    Args: `names`: of classes that are known; what is not among them comes behind.
    Raises: ValueError if a label is no whole number, or text that is another in every row.

    Example:
        >>> classes("x.csv", np.array(["dog", "cat", "dog"]))
        (array([1, 0, 1]), ('cat', 'dog'))
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind in "biu":
        return labels.astype(np.int64), None if names is None else tuple(names)
    if labels.dtype.kind == "f":
        if not (np.isfinite(labels) & (labels == np.round(labels))).all():
            k = int(np.argmin(np.isfinite(labels) & (labels == np.round(labels))))
            raise ValueError(
                f"labels of {origin} must be classes, got {labels[k]:g} in row {k} (from 0): name a column of classes, "
                "or fill in what is empty"
            )
        return labels.astype(np.int64), None if names is None else tuple(names)
    if labels.dtype.kind not in "UO" or labels.ndim != 1:
        raise ValueError(f"labels of {origin} must be one number or text per row, got {labels.dtype} {labels.shape}")
    words = [str(word).strip() for word in labels]
    if "" in words:
        raise ValueError(f"labels of {origin} must be there, got none in row {words.index('')} (from 0): fill it in")
    told = sorted(set(words))
    if len(told) == len(words) > 2:
        raise ValueError(
            f"labels of {origin} must be classes, got another in every row ({told[0]!r}, {told[1]!r}, ...): "
            "names of rows are --index-column"
        )
    known = list(names or ())
    known += [name for name in told if name not in known]
    place = {name: k for k, name in enumerate(known)}
    return np.array([place[word] for word in words], np.int64), tuple(known)
