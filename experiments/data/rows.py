"""Named tensors, one row of each per datum, and what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from dlvm.experiments.data.arguments import check_image_shape, check_labels, check_more, check_names
from dlvm.experiments.data.checks import check_dense, check_finite, check_present
from dlvm.experiments.data.ragged import LENGTHS, silent_behind

Kind = Literal["binary", "grey", "count", "real", "category", "image", "sequence"]
CHUNK = 4096  # rows that are looked at together for their kind


@dataclass(frozen=True)
class Reading:
    """How the data were read: what a new file needs to be read alike.

    Attributes: `scale`, by which x was divided, None where nobody gave one; `missing`, the words for an entry that is
    not there; the columns of labels and of ids; `key` of an npz; `binarize`, what became of greys; of sequences as in
    `Roles`.
    """

    scale: float | None = None
    missing: tuple[str, ...] = ()
    label_column: str | None = None
    index_column: str | None = None
    key: str | None = None
    binarize: str | None = None
    sequence_column: str | None = None
    time_column: str | None = None
    time_step: float | None = None
    text_column: str | None = None
    lines: bool = False


@dataclass(frozen=True)
class Rows:
    """Row-aligned tensors by their names, with the names of columns, rows and classes.

    Attributes: as in `Loader`; `kind` is None where it is to be told from x.
    Raises: ValueError or TypeError if one of them does not fit x.

    Example:
        >>> rows = Rows(torch.eye(2), columns=("a", "b"), index=("first", "second"))
        >>> rows.select(torch.tensor([1])).index, rows["x"].shape, tell_kind(rows)
        (('second',), torch.Size([2, 2]), 'binary')
    """

    x: Tensor
    labels: Tensor | None = None
    image_shape: tuple[int, ...] | None = None
    name: str = ""
    more: Mapping[str, Tensor] = field(default_factory=dict)
    columns: tuple[str, ...] | None = None
    index: tuple[str, ...] | None = None
    label_names: tuple[str, ...] | None = None
    vocabulary: tuple[str, ...] | None = None
    kind: Kind | None = None
    missing: bool = False
    reading: Reading = Reading()

    def __post_init__(self) -> None:
        x, kind = self.x, self.kind
        if not isinstance(x, Tensor):
            raise TypeError(f"x must be a tensor, got {type(x).__name__}: use torch.as_tensor or from_tensor")
        if kind is not None and (not isinstance(kind, str) or kind not in get_args(Kind)):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))} or None (told from x), got {kind!r}")
        if x.ndim not in ((2, 3) if kind == "sequence" else (2,)) or x.numel() == 0:
            what = "hold non-empty sequences" if kind == "sequence" else "be a non-empty matrix"
            raise ValueError(f"x must {what}, got shape {tuple(x.shape)}: flatten(1) images")
        check_dense(x)
        x = x.detach()
        if kind == "sequence" and LENGTHS in self.more:
            x = silent_behind(x, self.more[LENGTHS])
        if not (kind == "sequence" and not x.is_floating_point()):  # tokens stay whole numbers
            x = x.to(torch.get_default_dtype())
            (check_present if self.missing else check_finite)(x)
        labels = self.labels if self.labels is None else check_labels(self.labels, len(x)).to(x.device)
        classes = None if labels is None else (int(labels.min()), int(labels.max()))
        checked = {
            "x": x,
            "labels": labels,
            "image_shape": check_image_shape(self.image_shape, x.shape[1]),
            "more": check_more(self.more, x),
            "columns": check_names("columns", self.columns, x.shape[-1], "one per column of x"),
            "index": check_names("index", self.index, len(x), "one per row"),
            "label_names": check_names("label_names", self.label_names, classes, "one per class"),
            "vocabulary": check_names("vocabulary", self.vocabulary, None, "one per token"),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def __getitem__(self, name: str) -> Tensor:
        """The tensor of that name: x, tokens (x of whole numbers), y (the labels), mask (of missing), or of `more`."""
        if name in self.names:
            if name in self.more:
                return self.more[name]
            if name == "mask":
                return ~self.x.isnan()
            if name == "y" and self.labels is not None:
                return self.labels
            return self.x  # as x, or as tokens
        raise ValueError(f"name must be one of the data's tensors, {', '.join(self.names)}, got {name!r}: {self._lack}")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors that a batch can hold."""
        known = {"x": None, **dict.fromkeys(self.more)}
        known |= {} if self.x.is_floating_point() else {"tokens": None}
        known |= {"y": None} if self.labels is not None else {}
        return tuple(known | ({"mask": None} if self.missing else {}))

    @property
    def _lack(self) -> str:
        labelled = "" if self.labels is not None else "labels come by --label-column, or as labels=; "
        return f"{labelled}others by more={{name: tensor}}"

    def select(self, rows: Tensor | slice) -> Rows:
        """Those rows of everything."""
        kept = self.index
        if kept is not None:
            kept = kept[rows] if isinstance(rows, slice) else tuple(kept[i] for i in rows.tolist())
        return self.map(lambda tensor: tensor[rows])._unchecked(index=kept)

    def map(self, change: Callable[[Tensor], Tensor]) -> Rows:
        """The same with every tensor changed, in a way that keeps the numbers."""
        labels = None if self.labels is None else change(self.labels)
        more = {name: change(tensor) for name, tensor in self.more.items()}
        return self._unchecked(x=change(self.x), labels=labels, more=more)

    def of_kind(self, kind: Kind) -> Rows:
        """The same, known to be of that kind."""
        return self._unchecked(kind=kind)

    def _unchecked(self, **known: Any) -> Rows:
        """A copy that does not look at all the numbers again."""
        rows = object.__new__(Rows)
        rows.__dict__.update(self.__dict__, **known)
        return rows


def tell_kind(rows: Rows) -> Kind:
    """What the numbers of x are, unless it is given: told from all that are there.

    Returns: "sequence" where there are lengths; "binary" for 0 and 1; "image" for pictures in colours or in levels
        above 1; "grey" for values in [0, 1]; "count" for whole numbers from 0; else "real".
    """
    if rows.kind is not None:
        return rows.kind
    if "lengths" in rows.more:
        return "sequence"
    whole, low, high = True, 0.0, 0.0
    for chunk in rows.x.split(CHUNK):
        there = chunk[~chunk.isnan()] if rows.missing else chunk
        if there.numel():
            whole = whole and bool((there == there.round()).all())
            low, high = min(low, there.min().item()), max(high, there.max().item())
    if low < 0:
        return "real"
    if whole and high <= 1:
        return "binary"
    if rows.image_shape is not None and (high > 1 or len(rows.image_shape) == 3 and rows.image_shape[0] > 1):
        return "image"
    if high <= 1:
        return "grey"
    return "count" if whole else "real"
