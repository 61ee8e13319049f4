"""Minibatches by indexing one tensor."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import cached_property

import torch
from torch import Tensor

from dlvm.experiments.data.arguments import check_count, check_device, check_seed
from dlvm.experiments.data.checks import check_unit_interval
from dlvm.experiments.data.draws import draw, draw_below, stream, to_thresholds
from dlvm.experiments.data.ragged import LENGTHS, by_length, cut_to_longest, mean_of_steps
from dlvm.experiments.data.rows import Kind, Rows, tell_kind

EXAMPLE_ROWS = 8
SEQUENCE = (
    "which a model of a plain matrix cannot take (a piano roll or a text is not an image): a sequence model takes it"
)


class Loader:
    """Rows of data on a device, iterated as tuples `(x_batch,)`, the last one smaller if it must be.

    A dynamic loader holds grey values and draws every batch anew: x_ij ~ Bernoulli(grey_ij), with the grey rounded
    to a multiple of 2^-15 when the loader is made; 0 and 1 are exact. Shuffling and drawing come from the loader's
    own generator, never the global one, and go on from epoch to epoch; `seeded` starts over. A batch may be
    kept: later ones do not overwrite it. `giving("x", "y")` has batches of several tensors, a model's arguments.

    Attributes: `x` (num_data, x_dim), for a dynamic loader the greys and not a draw; `num_data`, `x_dim`,
    `batch_size`, `shuffle`, `dynamic`, `seed`, `device`; `labels` (num_data,) int64 or None; `image_shape`, for
    figures, or None; `name`; `more`, `columns`, `index`, `label_names`, `vocabulary`, `kind` as below, None where
    they are not known; `has_missing`; `rows`, all that is aligned. `len(loader)` is the number of batches.

    Args:
        x: (num_data, x_dim), kept in the default float dtype, which is the dtype of every batch. For kind
            "sequence" (num_data, steps, x_dim), or whole numbers (num_data, steps).
        batch_size: rows in a batch.
        shuffle: a new order of the rows in each epoch.
        dynamic: x holds probabilities of a 1, and each batch is a fresh draw.
        seed: of the shuffling and of the draws.
        labels: (num_data,) integers.
        image_shape: the shape of one row as an image, e.g. (28, 28).
        name: for tables and titles.
        more: other tensors of num_data rows by the names of a model's arguments: y, mask, lengths, covariates.
        columns: names of the columns of x.
        index: names of the rows.
        label_names: names of the classes 0, 1, ... in `labels`.
        vocabulary: what the whole numbers of a sequence stand for.
        kind: what the numbers are: binary, grey (in [0, 1]), count, real, category, image, sequence; else told from x.
        missing: NaN in x is an entry that is not there, and no mistake.

    Raises: ValueError if x is not a finite, non-empty matrix, leaves [0, 1] while dynamic, or one of the others does
    not fit x; TypeError if x is no tensor.

    Example:
        >>> loader = Loader(torch.eye(5), batch_size=2, labels=torch.arange(5))
        >>> len(loader), [len(x) for x, in loader]
        (3, [2, 2, 1])
        >>> [tuple(y.tolist()) for x, y in loader.giving("x", "y")]
        [(0, 1), (2, 3), (4,)]
    """

    def __init__(
        self,
        x: Tensor,
        batch_size: int = 100,
        shuffle: bool = False,
        dynamic: bool = False,
        seed: int = 0,
        labels: Tensor | None = None,
        image_shape: tuple[int, ...] | None = None,
        name: str = "",
        *,
        more: Mapping[str, Tensor] | None = None,
        columns: tuple[str, ...] | None = None,
        index: tuple[str, ...] | None = None,
        label_names: tuple[str, ...] | None = None,
        vocabulary: tuple[str, ...] | None = None,
        kind: Kind | None = None,
        missing: bool = False,
    ) -> None:
        names = (columns, index, label_names, vocabulary)
        rows = Rows(x, labels, image_shape, name, {} if more is None else more, *names, kind, bool(missing))
        self._start(rows, batch_size, shuffle, dynamic, seed)

    @classmethod
    def of(
        cls, rows: Rows, batch_size: int = 100, shuffle: bool = False, dynamic: bool = False, seed: int = 0
    ) -> Loader:
        """A loader of rows that are aligned already; the arguments are those of `Loader`."""
        loader = cls.__new__(cls)
        loader._start(rows, batch_size, shuffle, dynamic, seed)
        return loader

    _pool = 1  # batches whose rows are sorted together

    def _start(self, rows: Rows, batch_size: int, shuffle: bool, dynamic: bool, seed: int) -> None:
        if dynamic and (rows.x.ndim > 2 or rows.missing or not rows.x.is_floating_point()):
            raise ValueError(f"x must be a whole matrix for dynamic=True, got {rows.kind or 'missing entries'}")
        if dynamic:
            check_unit_interval(rows.x, "dynamic=True")
        self.rows = rows
        self.batch_size = check_count("batch_size", batch_size)
        self.shuffle, self.dynamic, self.seed = bool(shuffle), bool(dynamic), check_seed(seed)
        self._given: tuple[str, ...] = ("x",)
        self._thresholds = to_thresholds(rows.x) if dynamic else None
        self._generator = stream(seed, self.device)

    x = property(lambda self: self.rows.x, doc="The data, (num_data, x_dim).")
    labels = property(lambda self: self.rows.labels, doc="Class of each row, or None.")
    image_shape = property(lambda self: self.rows.image_shape, doc="Shape of a row as an image, or None.")
    name = property(lambda self: self.rows.name, doc="For tables and titles.")
    more = property(lambda self: dict(self.rows.more), doc="Other tensors by name.")
    columns = property(lambda self: self.rows.columns, doc="Names of the columns of x, or None.")
    index = property(lambda self: self.rows.index, doc="Names of the rows, or None.")
    label_names = property(lambda self: self.rows.label_names, doc="Names of the classes, or None.")
    vocabulary = property(lambda self: self.rows.vocabulary, doc="What a sequence's whole numbers stand for, or None.")
    has_missing = property(lambda self: self.rows.missing, doc="Whether NaN in x is an entry that is not there.")
    given = property(lambda self: self._given, doc="Names of the tensors in a batch, in order.")
    num_data = property(lambda self: self.x.shape[0], doc="Number of rows.")
    device = property(lambda self: self.x.device, doc="Where x and the batches lie.")

    @property
    def x_dim(self) -> int:
        """Number of columns; ValueError for sequences, which no model of a plain matrix takes."""
        if self.kind == "sequence":
            raise ValueError(f"{self.name or 'x'} holds sequences, {SEQUENCE}; got x of shape {tuple(self.x.shape)}")
        return self.x.shape[1]

    @cached_property
    def kind(self) -> Kind:
        """What the numbers in a batch are."""
        return "binary" if self.dynamic else tell_kind(self.rows)

    def __len__(self) -> int:
        return -(-self.num_data // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        size = min(self.batch_size, self.num_data)
        whole = [
            self.rows[name] if name != "x" or self._thresholds is None else self._thresholds for name in self._given
        ]
        if self.shuffle:
            order = torch.randperm(self.num_data, generator=self._generator, device=self.device)
            rows = by_length(self.more.get(LENGTHS), order, size, self._pool, self._generator)
            parts = ([source.index_select(0, each) for source in whole] for each in rows)
        else:
            parts = (list(part) for part in zip(*(source.split(size) for source in whole), strict=True))
        for part in parts:
            yield cut_to_longest(self._given, tuple(map(self._drawn, self._given, part)), self.x.shape[1])

    def _drawn(self, name: str, part: Tensor) -> Tensor:
        return draw_below(part, self._generator, self.x.dtype) if self.dynamic and name == "x" else part

    def __getitem__(self, name: str) -> Tensor:
        """The whole tensor of that name: x, y, mask (of missing data), or one of `more`."""
        return self.rows[name]

    def giving(self, *names: str) -> Loader:
        """The same data in batches of these tensors in this order; its stream starts afresh from the loader's seed."""
        if not names or len(set(names)) != len(names):
            raise ValueError(f"name must be there, and each once, got {names}: write giving('x', 'y')")
        for name in names:
            self.rows[name]
        loader = self.seeded(self.seed)
        loader._given = names
        return loader

    def pooled(self, pool: int) -> Loader:
        """The same data, so many batches at a time made of sequences sorted by length: an epoch has each one once."""
        self.rows[LENGTHS]
        loader = self.seeded(self.seed)
        loader._pool = check_count("pool", pool)
        return loader

    @property
    def example(self) -> Tensor:
        """The first rows (at most 8) as in a batch; the same values each time, for `latents(model, ...)`."""
        rows = self.x[: min(EXAMPLE_ROWS, self.batch_size)]
        return draw(rows, stream(0, self.device)) if self.dynamic else rows

    @property
    def examples(self) -> tuple[Tensor, ...]:
        """The same rows of each tensor that a batch holds, in its order: `latents(model, *loader.examples)`."""
        most = min(EXAMPLE_ROWS, self.batch_size)
        parts = tuple(self.example if name == "x" else self.rows[name][:most] for name in self._given)
        return cut_to_longest(self._given, parts, self.x.shape[1])

    @property
    def mean(self) -> Tensor:
        """Mean of each column over what is there, (x_dim,); for a dynamic loader the mean probability of a 1."""
        if not self.x.is_floating_point():
            raise ValueError(f"x of {self.name or 'the data'} holds tokens, {SEQUENCE}: they have no mean")
        if self.x.ndim == 3:
            return mean_of_steps(self.x, self.more.get(LENGTHS))
        found = self.x.double().nanmean(0) if self.has_missing else self.x.mean(0, dtype=torch.float64)
        return found.to(self.x.dtype)

    def state_dict(self) -> dict[str, Tensor]:
        """Where the stream of shuffling and drawing stands."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Goes on from where ``state_dict()`` was."""
        try:
            self._generator.set_state(dict(state)["generator"])
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            said = str(error).split("\n")[0]
            raise ValueError(f"state must be what state_dict() of a loader on {self.device} gave ({said})") from error

    def seeded(self, seed: int) -> Loader:
        """The same data, not copied, with a stream of its own that starts afresh from `seed`."""
        loader = copy.copy(self)
        loader.seed, loader._generator = check_seed(seed), stream(seed, self.device)
        return loader

    def to(self, device: str | torch.device) -> Loader:
        """The same data on `device`; its stream starts afresh from the loader's seed."""
        device = check_device(device)
        thresholds = None if self._thresholds is None else self._thresholds.to(device)
        return self._with(self.rows.map(lambda tensor: tensor.to(device)), thresholds)

    def take(self, n: int) -> Loader:
        """The first n rows; its stream starts afresh from the loader's seed."""
        check_count("n", n, most=self.num_data)
        return self._with(self.rows.select(slice(n)), None if self._thresholds is None else self._thresholds[:n])

    def first(self, most: int) -> Tensor:
        """The first rows, at most so many, in their own order: where a loader draws, drawn; (rows, x_dim)."""
        taken = self.giving("x").take(min(most, self.num_data))
        taken.shuffle = False  # row by row beside labels and names
        return torch.cat([rows for (rows,) in taken])

    def __repr__(self) -> str:
        how = ", shuffled" * self.shuffle + ", drawn anew each time" * self.dynamic
        batches = f"{len(self)} batch{'es' * (len(self) > 1)} of {self.batch_size}"
        name = f"{self.name}: " if self.name else ""
        sizes = " x ".join(map(str, self.x.shape))
        return f"Loader({name}{sizes}, {batches}{how})"

    def _with(self, rows: Rows, thresholds: Tensor | None) -> Loader:
        loader = copy.copy(self)
        loader.kind = self.kind  # that of all the data, not of the part
        loader.rows, loader._thresholds = rows, thresholds
        loader._generator = stream(loader.seed, loader.device)
        return loader
