"""The data of a batch: which arguments have a row for each, how they are cut, and how many data a loss counts for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from dlvm.inference.programs.batches import arguments, batches_of
from dlvm.inference.programs.beside import number_of_data
from dlvm.inference.programs.notes import in_words
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.plates import common_plates, sample_sites
from dlvm.inference.programs.randomness import untouched


def has_rows(value: object, count: int) -> bool:
    """Whether an argument has a row for each of so many data."""
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) == count


def taken(value: Any, index: Tensor | slice, count: int) -> Any:
    """Of an argument with a row for each of ``count`` data these rows; any other as it is."""
    return value[index] if has_rows(value, count) else value


def rows_of(args: tuple, index: Tensor | slice) -> tuple:
    """Some data of a batch, see ``taken``."""
    return tuple(taken(value, index, len(args[0])) for value in args)


def split(args: tuple, rows: int) -> Iterator[tuple]:
    """A batch's arguments, a few data at a time."""
    for start in range(0, len(args[0]), rows):
        yield rows_of(args, slice(start, start + rows))


def first_datum(args: tuple) -> tuple:
    """A batch's arguments, cut to one datum."""
    return rows_of(args, slice(0, 1))


def must_be_whole(pair: Pair, args: tuple) -> bool:
    """Whether a batch cannot be cut into rows of its first arguments' first axis: told by what its first row gives.

    So it is with a guide that has a parameter for each datum, with data along another axis, with data that the programs
    subsample by themselves. Costs one run of both programs on one row, once for a pair and calls that look alike.
    """
    return len(args[0]) > 1 and pair.recall(_fails_on_one_row, args, {})


def _fails_on_one_row(pair: Pair, args: tuple, kwargs: dict) -> bool:
    try:
        with untouched(), torch.no_grad(), poutine.block(), pair.evaluating():
            traces = pair.traces(first_datum(args), kwargs)
            for trace in traces:
                trace.compute_log_prob()
    except Exception:  # whatever a program raises on one row; on the whole batch it will say what is wrong
        return True
    return any(frame.size != 1 for frame in common_plates(sample_sites(*traces)))


def gathered(data: Tensor | Iterable) -> tuple:
    """The arguments of all batches as those of one; what has no row for each datum is that of the first batch.

    Raises:
        ValueError: there are no data, or arguments are of another shape in another batch.
    """
    batches = [arguments(batch) for batch in batches_of(data)]
    if not batches:
        raise ValueError("data hold no batch; pass a tensor or a loader with at least one datum")
    rowed = [[has_rows(a, len(args[0])) for a in args] for args in batches]
    shapes = {
        tuple(tuple(a.shape[1:]) if has else None for a, has in zip(args, flags, strict=True))
        for args, flags in zip(batches, rowed, strict=True)
    }
    if len(shapes) > 1:
        raise ValueError(
            f"a batch's arguments must have the same shapes in all batches, rows apart, got {sorted(shapes, key=str)}; "
            "pass data of one width, and what is no data in another shape than one row per datum"
        )
    return tuple(
        torch.cat([args[i] for args in batches]) if rowed[0][i] else first for i, first in enumerate(batches[0])
    )


def width_of(args: tuple) -> int:
    """Numbers per datum in the widest of a batch's arguments, at least 1."""
    return max(1, *(a[0].numel() for a in args if isinstance(a, Tensor) and a.dim()))


class DataCount:
    """By how many data a loss on a batch is to be divided, to be nats per datum.

    It is the scale that a datum's sites share, summed over the batch: the batch size in a plain plate, the full size in
    a subsampled one; in a plate without a size, as many as its sites have rows. What is observed beside the data, as
    by ``pyro.factor`` or outside the plate, counts as no datum. Counts are remembered by the shapes of a batch.
    """

    def __init__(self, pair: Pair):
        self.pair = pair
        self.known: dict[tuple, float] = {}

    def __call__(self, args: tuple) -> float:
        key = tuple(tuple(a.shape) if isinstance(a, Tensor) else a for a in args)
        if key not in self.known:
            with untouched(), torch.no_grad(), self.pair.evaluating(), in_words("the model", args, {}):
                sites = sample_sites(poutine.trace(self.pair.model).get_trace(*args))
            self.known[key] = number_of_data(sites)
        return self.known[key]
