"""The data of a batch: which arguments have a row for each, how they are cut, and how many data a loss counts for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from dlvm.inference.programs.batches import arguments, batches_of, look, rows_in
from dlvm.inference.programs.beside import number_of_data
from dlvm.inference.programs.modules import signature_of
from dlvm.inference.programs.notes import in_words
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.plates import data_plates, sample_sites
from dlvm.inference.programs.randomness import untouched

Axes = tuple[int | None, ...]  # for each argument the axis along which it has its data; None: it has none


def has_rows(value: object, count: int, axis: int = 0) -> bool:
    """Whether an argument has a row for each of so many data, along an axis."""
    return isinstance(value, Tensor) and value.dim() > axis and value.shape[axis] == count


def taken(value: Any, index: Tensor | slice, count: int) -> Any:
    """Of an argument with a row for each of ``count`` data these rows; any other as it is."""
    return value[index] if has_rows(value, count) else value


def batch_size(pair: Pair, args: tuple) -> int:
    """How many rows a batch has: along the axis that is said of an argument, else its first tensor's first.

    Raises:
        ValueError: an argument has not the axis that is said, or another number of data along it, or all are shared.
    """
    if not (said := pair.axes):
        return rows_in(args)
    own = [(i, value) for i, value in enumerate(args) if isinstance(value, Tensor) and said.get(i, 0) is not None]
    for i, value in own:
        if i in said and value.dim() <= (said[i] or 0):
            raise ValueError(
                f"per_datum={{{_name(pair, i)!r}: {said[i]}}} is said of the model by described(...), and the argument "
                f"has shape {tuple(value.shape)}; say along which of its axes its data lie"
            )
    counts = {i: value.shape[said[i] or 0] for i, value in own if i in said}
    if len(set(counts.values())) > 1:
        numbers = ", ".join(f"{_name(pair, i)}: {count}" for i, count in counts.items())
        raise ValueError(
            f"per_datum is said of arguments with another number of data each ({numbers}); pass a row of each for "
            "every datum, or say of the others that they are shared"
        )
    others = [len(value) for i, value in own if i not in said and value.dim()]
    if not counts and not others:
        raise ValueError(
            f"shared={sorted(_name(pair, i) for i in said)} is said of the model by described(...), and a batch has no "
            "other tensor with a row for each datum; name what all data share alone"
        )
    return next(iter(counts.values())) if counts else others[0]


def _name(pair: Pair, position: int) -> str:
    return list(signature_of(pair.model).parameters)[position]


def rows_of(args: tuple, index: Tensor | slice, having: Sequence[int | None] | None = None) -> tuple:
    """Some data of a batch.

    Args:
        args: of the batch.
        index: which.
        having: the axis along which each argument has its data, see ``rowed``; by their lengths unless told.
    """
    having = by_length(args) if having is None else having
    return tuple(value if axis is None else _at(value, index, axis) for value, axis in zip(args, having, strict=True))


def _at(value: Tensor, index: Tensor | slice, axis: int) -> Tensor:
    return value[index] if axis == 0 else value[(*[slice(None)] * axis, index)]


def split(args: tuple, rows: int, having: Sequence[int | None] | None = None) -> Iterator[tuple]:
    """A batch's arguments, a few data at a time."""
    having = by_length(args) if having is None else having
    for start in range(0, rows_along(args, having), rows):
        yield rows_of(args, slice(start, start + rows), having)


def rows_along(args: tuple, having: Sequence[int | None]) -> int:
    """How many data the arguments have along these axes."""
    sizes = (value.shape[axis] for value, axis in zip(args, having, strict=True) if axis is not None)
    return next(sizes, rows_in(args))


def by_length(args: tuple, pair: Pair | None = None) -> Axes:
    """Arguments as long as the first have their data along the first axis, but for what is said of the pair."""
    count, said = (rows_in(args), {}) if pair is None else (batch_size(pair, args), pair.axes)
    axes = (said.get(i, 0) for i in range(len(args)))
    return tuple(
        a if a is not None and has_rows(value, count, a) else None for value, a in zip(args, axes, strict=True)
    )


def gathered(data: Tensor | Iterable, having: Callable[[tuple], Axes | None] = by_length) -> tuple:
    """The arguments of all batches as those of one; what has no row for each datum is the same in all.

    Args:
        data: as ``evaluate`` takes them.
        having: the axis along which each of a batch's arguments has its data.

    Raises:
        ValueError: there are no data, or arguments are of another shape, or others without rows, in another batch.
    """
    batches = [arguments(batch) for batch in batches_of(data)]
    if not batches:
        raise ValueError("data hold no batch; pass a tensor or a loader with at least one datum")
    rowed = [having(args) or by_length(args) for args in batches]
    shapes = {
        tuple(None if at is None else (*a.shape[:at], *a.shape[at + 1 :]) for a, at in zip(args, axes, strict=True))
        for args, axes in zip(batches, rowed, strict=True)
    }
    if len(shapes) > 1:
        raise ValueError(
            f"a batch's arguments must have the same shapes in all batches, rows apart, got {sorted(shapes, key=str)}; "
            "pass data of one width, and what is no data in another shape than one row per datum"
        )
    first = batches[0]
    for i in (i for i, axis in enumerate(rowed[0]) if axis is None):
        if not all(_equal(first[i], args[i]) for args in batches):
            raise ValueError(
                f"argument {i} has no row for each datum and differs between batches, which are to be one here; pass "
                "batches with the same value, one set of batches at a time"
            )
    axes = zip(first, rowed[0], strict=True)
    return tuple(v if at is None else torch.cat([args[i] for args in batches], at) for i, (v, at) in enumerate(axes))


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b)
    return a is b or a == b


def width_of(args: tuple, pair: Pair | None = None) -> int:
    """Numbers per datum in the widest of a batch's arguments, at least 1; along the axes that are said of a pair's."""
    said = {} if pair is None else pair.axes
    axes = [(a, said.get(i) or 0) for i, a in enumerate(args) if isinstance(a, Tensor)]
    return max(1, *(a.select(axis, 0).numel() for a, axis in axes if a.dim() > axis and a.shape[axis]))


class DataCount:
    """By how many data a loss on a batch is to be divided, to be nats per datum.

    It is the scale that a datum's sites share, summed over the batch: the batch size in a plain plate, the full size in
    a subsampled one; in a plate without a size, as many as its sites have rows. What is observed beside the data, as
    by ``pyro.factor`` or outside the plate, counts as no datum. Counts are remembered by the shapes of a batch,
    but where data have weights.
    """

    def __init__(self, pair: Pair):
        self.pair = pair
        self.known: dict[tuple, tuple[float, float]] = {}
        self.latest: tuple[tuple, tuple[float, float]] | None = None
        self.kept: list[object] = []  # objects that are known by identity stay what they are

    def __call__(self, args: tuple) -> float:
        return self._found(args)[0]

    def share(self, args: tuple) -> float:
        """What a batch is of the data that it stands for: M / N in a plate that it subsamples, and 1 elsewhere.

        Losses that all stand for the N data are averaged by it, since batches of an epoch may have several sizes.
        """
        return self._found(args)[1]

    def _found(self, args: tuple) -> tuple[float, float]:
        if (found := self.known.get(key := look(args))) is not None:
            return found
        if self.latest is not None and self.latest[0] is args:
            return self.latest[1]
        with untouched(), torch.no_grad(), self.pair.evaluating(), in_words("the model", args, {}):
            sites = sample_sites(poutine.trace(self.pair.model).get_trace(*args))
        count = number_of_data(sites), self._share(sites, args)
        self.latest = args, count
        if not any(isinstance(site["scale"], Tensor) and site["scale"].numel() > 1 for site in sites):
            self.known[key] = count  # weights of data are others in each batch
            self.kept += [a for a in args if not isinstance(a, Tensor)]
        return count

    def _share(self, sites: list[dict], args: tuple) -> float:
        subsampled = [frame for frame in data_plates(sites) if frame.size < (frame.full_size or frame.size)]
        if not subsampled:
            return 1.0
        rows = batch_size(self.pair, args)  # a program that picks some of these by itself stands for all of them
        return math.prod(frame.size / frame.full_size for frame in subsampled if frame.size == rows)
