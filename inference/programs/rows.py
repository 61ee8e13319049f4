"""The data of a batch: which arguments have a row for each, how they are cut, and how many data a loss counts for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from dlvm.inference.programs.batches import arguments, batches_of, look, rows_in
from dlvm.inference.programs.beside import number_of_data
from dlvm.inference.programs.notes import in_words
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.plates import sample_sites
from dlvm.inference.programs.randomness import untouched


def has_rows(value: object, count: int) -> bool:
    """Whether an argument has a row for each of so many data."""
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) == count


def taken(value: Any, index: Tensor | slice, count: int) -> Any:
    """Of an argument with a row for each of ``count`` data these rows; any other as it is."""
    return value[index] if has_rows(value, count) else value


def rows_of(args: tuple, index: Tensor | slice, having: Sequence[bool] | None = None) -> tuple:
    """Some data of a batch.

    Args:
        args: of the batch.
        index: which.
        having: which of the arguments have a row for each datum, see ``rowed``; by their lengths unless told.
    """
    having = by_length(args) if having is None else having
    return tuple(value[index] if has else value for value, has in zip(args, having, strict=True))


def split(args: tuple, rows: int, having: Sequence[bool] | None = None) -> Iterator[tuple]:
    """A batch's arguments, a few data at a time."""
    for start in range(0, rows_in(args), rows):
        yield rows_of(args, slice(start, start + rows), having)


def by_length(args: tuple) -> tuple[bool, ...]:
    """Which arguments are as long as the first."""
    return tuple(has_rows(value, rows_in(args)) for value in args)


def gathered(data: Tensor | Iterable, having: Callable[[tuple], Sequence[bool] | None] = by_length) -> tuple:
    """The arguments of all batches as those of one; what has no row for each datum is the same in all.

    Args:
        data: as ``evaluate`` takes them.
        having: which of a batch's arguments have a row for each datum.

    Raises:
        ValueError: there are no data, or arguments are of another shape, or others without rows, in another batch.
    """
    batches = [arguments(batch) for batch in batches_of(data)]
    if not batches:
        raise ValueError("data hold no batch; pass a tensor or a loader with at least one datum")
    rowed = [having(args) or by_length(args) for args in batches]
    shapes = {
        tuple(tuple(a.shape[1:]) if has else None for a, has in zip(args, flags, strict=True))
        for args, flags in zip(batches, rowed, strict=True)
    }
    if len(shapes) > 1:
        raise ValueError(
            f"a batch's arguments must have the same shapes in all batches, rows apart, got {sorted(shapes, key=str)}; "
            "pass data of one width, and what is no data in another shape than one row per datum"
        )
    first = batches[0]
    for i in (i for i, has in enumerate(rowed[0]) if not has):
        if not all(_equal(first[i], args[i]) for args in batches):
            raise ValueError(
                f"argument {i} has no row for each datum and differs between batches, which are to be one here; pass "
                "batches with the same value, one set of batches at a time"
            )
    return tuple(torch.cat([args[i] for args in batches]) if rowed[0][i] else value for i, value in enumerate(first))


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b)
    return a is b or a == b


def width_of(args: tuple) -> int:
    """Numbers per datum in the widest of a batch's arguments, at least 1."""
    return max(1, *(a[0].numel() for a in args if isinstance(a, Tensor) and a.dim()))


class DataCount:
    """By how many data a loss on a batch is to be divided, to be nats per datum.

    It is the scale that a datum's sites share, summed over the batch: the batch size in a plain plate, the full size in
    a subsampled one; in a plate without a size, as many as its sites have rows. What is observed beside the data, as
    by ``pyro.factor`` or outside the plate, counts as no datum. Counts are remembered by the shapes of a batch,
    but where data have weights.
    """

    def __init__(self, pair: Pair):
        self.pair = pair
        self.known: dict[tuple, float] = {}
        self.kept: list[object] = []  # objects that are known by identity stay what they are

    def __call__(self, args: tuple) -> float:
        if (found := self.known.get(key := look(args))) is not None:
            return found
        with untouched(), torch.no_grad(), self.pair.evaluating(), in_words("the model", args, {}):
            sites = sample_sites(poutine.trace(self.pair.model).get_trace(*args))
        count = number_of_data(sites)
        if not any(isinstance(site["scale"], Tensor) and site["scale"].numel() > 1 for site in sites):
            self.known[key] = count  # weights of data are others in each batch
            self.kept += [a for a in args if not isinstance(a, Tensor)]
        return count
