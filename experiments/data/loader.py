"""Minibatches by indexing one tensor."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dlvm.experiments.data.arguments import check_count, check_device, check_image_shape, check_labels, check_seed
from dlvm.experiments.data.checks import check_dense, check_finite, check_unit_interval

EXAMPLE_ROWS = 8
LEVELS = 2**15  # of a dynamic draw's probabilities
SIGN_BITS = -0x7FFF7FFF7FFF8000  # the top bit of each of the four int16 in an int64


class Loader:
    """One matrix of data on a device, iterated as tuples `(x_batch,)`, the last one smaller if it must be.

    A dynamic loader holds grey values and draws every batch anew: x_ij ~ Bernoulli(grey_ij), with the grey rounded
    to a multiple of 2^-15 when the loader is made; 0 and 1 are exact. Shuffling and drawing come from the loader's
    own generator, never the global one, and go on from epoch to epoch; `seeded` starts over. A batch may be
    kept: later ones do not overwrite it.

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
        check_dense(x)
        x = x.detach().to(torch.get_default_dtype())
        check_finite(x)
        if dynamic:
            check_unit_interval(x, "dynamic=True")
        if labels is not None:
            labels = check_labels(labels, len(x)).to(x.device)
        self.x = x
        self.batch_size = check_count("batch_size", batch_size)
        self.shuffle, self.dynamic, self.seed = bool(shuffle), bool(dynamic), check_seed(seed)
        self.labels = labels
        self.image_shape, self.name = check_image_shape(image_shape, x.shape[1]), name
        self._thresholds = to_thresholds(self.x) if dynamic else None
        self._generator = stream(seed, self.device)

    num_data = property(lambda self: self.x.shape[0], doc="Number of rows.")
    x_dim = property(lambda self: self.x.shape[1], doc="Number of columns.")
    device = property(lambda self: self.x.device, doc="Where x and the batches lie.")

    def __len__(self) -> int:
        return -(-self.num_data // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor]]:
        source, size = self.x if self._thresholds is None else self._thresholds, min(self.batch_size, self.num_data)
        if self.shuffle:
            order = torch.randperm(self.num_data, generator=self._generator, device=self.device)
            parts = (source.index_select(0, rows) for rows in order.split(size))
        else:
            parts = source.split(size)
        for part in parts:
            yield (draw_below(part, self._generator, self.x.dtype) if self.dynamic else part,)

    @property
    def example(self) -> Tensor:
        """The first rows (at most 8) as in a batch; the same values each time, for `latents(model, ...)`."""
        rows = self.x[: min(EXAMPLE_ROWS, self.batch_size)]
        return draw(rows, stream(0, self.device)) if self.dynamic else rows

    @property
    def mean(self) -> Tensor:
        """Mean of each column, (x_dim,); for a dynamic loader the mean probability of a 1."""
        return self.x.mean(0, dtype=torch.float64).to(self.x.dtype)

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
        return self._with(lambda rows: rows.to(device))

    def take(self, n: int) -> Loader:
        """The first n rows; its stream starts afresh from the loader's seed."""
        check_count("n", n, most=self.num_data)
        return self._with(lambda rows: rows[:n])

    def first(self, most: int) -> Tensor:
        """The first rows, at most so many, as batches hold them: where a loader draws, drawn; (rows, x_dim)."""
        return torch.cat([rows for (rows,) in self.take(min(most, self.num_data))])

    def __repr__(self) -> str:
        how = ", shuffled" * self.shuffle + ", drawn anew each time" * self.dynamic
        batches = f"{len(self)} batch{'es' * (len(self) > 1)} of {self.batch_size}"
        name = f"{self.name}: " if self.name else ""
        return f"Loader({name}{self.num_data} x {self.x_dim}, {batches}{how})"

    def _with(self, change: Callable[[Tensor], Tensor]) -> Loader:
        loader = self.seeded(self.seed)
        for name in ("x", "labels", "_thresholds"):
            rows = getattr(self, name)
            setattr(loader, name, None if rows is None else change(rows))
        loader._generator = stream(loader.seed, loader.device)
        return loader


def stream(seed: int, device: torch.device) -> torch.Generator:
    """A generator unlike the one that `torch.manual_seed(seed)` starts, which may have made the data."""
    return torch.Generator(device).manual_seed(check_seed(seed) ^ 0x5DEECE66)


def draw(probability: Tensor, generator: torch.Generator) -> Tensor:
    """One draw of Bernoulli(probability) per entry, as 0. and 1. in the dtype of `probability`."""
    fine = torch.promote_types(probability.dtype, torch.float32)  # bfloat16 has but 256 steps from 0 to 1
    uniform = torch.rand(probability.shape, generator=generator, device=probability.device, dtype=fine)
    return (uniform < probability).to(probability.dtype)


def to_thresholds(probability: Tensor) -> Tensor:
    """What `draw_below` compares with, int16 of the same shape: probabilities in steps of 2^-15, 0 and 1 exact."""
    fine = probability.to(torch.promote_types(probability.dtype, torch.float32))
    return fine.mul(LEVELS).round_().sub_(LEVELS).to(torch.int16)


def draw_below(thresholds: Tensor, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """One draw per threshold t: 1. with probability 1 + t / 2^15. Three times as fast as `draw`."""
    bits = torch.empty(-(-thresholds.numel() // 4), dtype=torch.int64, device=thresholds.device)
    bits.random_(-(2**63), None, generator=generator).bitwise_or_(SIGN_BITS)
    uniform = bits.view(torch.int16)[: thresholds.numel()].view(thresholds.shape)  # over -2^15 .. -1
    out = torch.empty(thresholds.shape, dtype=dtype, device=thresholds.device)
    return torch.lt(uniform, thresholds, out=out)
