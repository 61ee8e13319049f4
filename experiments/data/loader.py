"""Minibatches by indexing one tensor."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from .checks import check_count, check_finite, check_labels, check_unit_interval

EXAMPLE_ROWS = 8


class Loader:
    """One matrix of data on a device, iterated as tuples `(x_batch,)`, the last one smaller if it must be.

    A dynamic loader holds grey values and draws every batch anew: x_ij ~ Bernoulli(grey_ij). Shuffling and
    drawing come from the loader's own generator, never the global one, and go on from epoch to epoch;
    `seeded` starts over.

    Attributes: `x` (num_data, x_dim), for a dynamic loader the greys and not a draw; `num_data`, `x_dim`,
    `batch_size`, `shuffle`, `dynamic`, `seed`, `device`; `labels` (num_data,) int64 or None, for figures only
    and never in a batch; `image_shape`, for figures, or None; `name`. `len(loader)` is the number of batches.

    Args:
        x: (num_data, x_dim), kept in the default float dtype, which is the dtype of every batch.
        batch_size: rows in a batch.
        shuffle: a new order of the rows in each epoch.
        dynamic: x holds probabilities of a 1, and each batch is a fresh draw.
        seed: of the shuffling and of the draws.
        labels: (num_data,) integers.
        image_shape: the shape of one row as an image, e.g. (28, 28).
        name: for tables and titles.

    Raises: ValueError if x is not a finite, non-empty matrix, leaves [0, 1] while dynamic, or does not fit
    `labels` or `image_shape`; TypeError if x is no tensor.

    Example:
        >>> loader = Loader(torch.eye(5), batch_size=2)
        >>> len(loader), [len(x) for x, in loader]
        (3, [2, 2, 1])
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
    ) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(f"x must be a tensor, got {type(x).__name__}: use torch.as_tensor or from_tensor")
        if x.ndim != 2 or x.numel() == 0:
            raise ValueError(f"x must be a non-empty matrix, got shape {tuple(x.shape)}: flatten(1) images")
        check_finite(x)
        if dynamic:
            check_unit_interval(x, "dynamic=True")
        if labels is not None:
            labels = check_labels(labels, len(x)).to(x.device)
        if image_shape is not None and torch.Size(image_shape).numel() != x.shape[1]:
            raise ValueError(f"image_shape must hold the {x.shape[1]} columns of x, got {tuple(image_shape)}")
        self.x = x.detach().to(torch.get_default_dtype())
        self.batch_size = check_count("batch_size", batch_size)
        self.shuffle, self.dynamic, self.seed = shuffle, dynamic, seed
        self.labels = labels
        self.image_shape, self.name = None if image_shape is None else tuple(image_shape), name
        self._generator = stream(seed, self.device)

    num_data = property(lambda self: self.x.shape[0], doc="Number of rows.")
    x_dim = property(lambda self: self.x.shape[1], doc="Number of columns.")
    device = property(lambda self: self.x.device, doc="Where x and the batches lie.")

    def __len__(self) -> int:
        return -(-self.num_data // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor]]:
        order = None
        if self.shuffle:
            order = torch.randperm(self.num_data, generator=self._generator, device=self.device)
        for start in range(0, self.num_data, self.batch_size):
            rows = slice(start, start + self.batch_size)
            batch = self.x[rows if order is None else order[rows]]
            yield (draw(batch, self._generator) if self.dynamic else batch,)

    @property
    def example(self) -> Tensor:
        """The first rows (at most 8) as in a batch; the same values each time, for `latents(model, ...)`."""
        rows = self.x[: min(EXAMPLE_ROWS, self.batch_size)]
        return draw(rows, stream(0, self.device)) if self.dynamic else rows

    @property
    def mean(self) -> Tensor:
        """Mean of each column, (x_dim,); for a dynamic loader the mean probability of a 1."""
        return self.x.mean(0, dtype=torch.float64).to(self.x.dtype)

    def seeded(self, seed: int) -> Loader:
        """The same data, not copied, with a stream of its own that starts afresh from `seed`."""
        return self._with(seed=seed)

    def to(self, device: str | torch.device) -> Loader:
        """The same data on `device`; its stream starts afresh from the loader's seed."""
        labels = None if self.labels is None else self.labels.to(device)
        return self._with(x=self.x.to(device), labels=labels)

    def take(self, n: int) -> Loader:
        """The first n rows; its stream starts afresh from the loader's seed."""
        check_count("n", n, most=self.num_data)
        return self._with(x=self.x[:n], labels=None if self.labels is None else self.labels[:n])

    def __repr__(self) -> str:
        how = ", shuffled" * self.shuffle + ", drawn anew each time" * self.dynamic
        batches = f"{len(self)} batch{'es' * (len(self) > 1)} of {self.batch_size}"
        name = f"{self.name}: " if self.name else ""
        return f"Loader({name}{self.num_data} x {self.x_dim}, {batches}{how})"

    def _with(self, **changes: object) -> Loader:
        loader = copy.copy(self)
        vars(loader).update(changes)
        loader._generator = stream(loader.seed, loader.device)
        return loader


def stream(seed: int, device: torch.device) -> torch.Generator:
    """A generator unlike the one that `torch.manual_seed(seed)` starts, which may have made the data."""
    return torch.Generator(device).manual_seed(seed ^ 0x5DEECE66)


def draw(probability: Tensor, generator: torch.Generator) -> Tensor:
    """One draw of Bernoulli(probability) per entry, as 0. and 1. in the dtype of `probability`."""
    uniform = torch.rand(probability.shape, generator=generator, device=probability.device, dtype=probability.dtype)
    return (uniform < probability).to(probability.dtype)
