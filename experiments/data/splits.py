"""Three loaders over rows that do not overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from dlvm.distributions.sequences.lengths import steps_within
from dlvm.experiments.data.arguments import check_count, check_device, check_seed, is_whole
from dlvm.experiments.data.checks import check_unit_interval
from dlvm.experiments.data.draws import draw, stream
from dlvm.experiments.data.loader import Loader
from dlvm.experiments.data.rows import Kind, Rows, tell_kind

Binarize = Literal["static", "dynamic", "threshold"]

SPLIT_SEED = 0  # one permutation for everybody: runs with different seeds are judged on the same test rows
WIDEST_FIRST: tuple[Kind, ...] = ("sequence", "category", "image", "real", "count", "grey", "binary")
STATIC_SEEDS = (1, 2, 3)  # of the fixed draws of train, valid and test


class Splits(NamedTuple):
    """Loaders of the training rows (shuffled), the validation rows and the test rows (in order)."""

    train: Loader
    valid: Loader
    test: Loader

    def tested_on(self, most: int | None) -> Splits:
        """The same with at most so many test rows; all of them for None."""
        if most is None:
            return self
        return self._replace(test=self.test.take(min(check_count("most", most), self.test.num_data)))


def split_rows(n: int, valid: int | float, test: int | float) -> list[Tensor]:
    """A fixed permutation of 0..n-1, cut into rows for train, valid and test.

    Returns: three int64 vectors without a common entry, which together hold every row once.
    Args: `valid` and `test` are numbers of rows if int, fractions in (0, 1) if float (at least one row each).
    Raises: ValueError if a part would be empty.

    Example:
        >>> [len(rows) for rows in split_rows(10, valid=0.2, test=3)]
        [5, 2, 3]
    """
    return cut_rows(n, {"valid": valid, "test": test})


def cut_rows(n: int, parts: Mapping[str, int | float]) -> list[Tensor]:
    """The same for parts of any names: what is left for training, then each of them."""
    sizes = []
    for name, size in parts.items():
        number = isinstance(size, Real) and not isinstance(size, bool)
        if not number or not (size >= 1 if is_whole(size) else 0 < size < 1):
            raise ValueError(f"{name} must be a fraction in (0, 1) or a number of rows, got {size!r}: 0.1 is usual")
        sizes.append(int(size) if is_whole(size) else max(1, round(n * float(size))))
    if n - sum(sizes) < 1:
        asked = " and ".join(f"{name}={size}" for name, size in parts.items())
        raise ValueError(
            f"x has {n} row{'s' * (n > 1)}, too few for {asked}: train, valid and test need at least one each; lower "
            f"the {'two' if len(parts) > 1 else 'number'}, or use Loader(x) for all rows in one loader"
        )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(SPLIT_SEED))
    return list(order.split([n - sum(sizes), *sizes]))


def binarized(grey: Tensor, how: Binarize, seed: int) -> Tensor:
    """Zeros and ones from greys in [0, 1]: grey >= 1/2 for "threshold", else one draw of Bernoulli(grey)."""
    if how == "threshold":
        return (grey >= 0.5).to(grey.dtype)
    return draw(grey, stream(seed, grey.device))


def check_options(binarize: Binarize | None, batch_size: int, device: str | torch.device, seed: int) -> None:
    """Refuses what no data set takes, before a file is looked for.

    Raises: ValueError or TypeError that names the first of the four that is wrong.
    """
    if binarize is not None and (not isinstance(binarize, str) or binarize not in get_args(Binarize)):
        options = ", ".join(map(repr, get_args(Binarize)))
        raise ValueError(f"binarize must be {options} or None (greys as they are), got {binarize!r}")
    check_count("batch_size", batch_size)
    check_device(device)
    check_seed(seed)


def make_splits(
    parts: Sequence[Rows],
    binarize: Binarize | None,
    batch_size: int,
    device: str | torch.device,
    seed: int,
) -> Splits:
    """Loaders of the three parts, binarised as the public functions of this room say.

    "dynamic" holds for the training part alone: validation and test are then the static draws, so that all
    runs are judged on the same data. The static draws are the same for every `seed`.

    Args: as `check_options` lets them pass.
    Raises: ValueError for values outside [0, 1] where they are binarised, or a column of which training sees nothing.
    """
    kind = "binary" if binarize is not None else _kind_of_all(parts)
    loaders: list[Loader] = []
    for part, static_seed in zip(parts, STATIC_SEEDS, strict=True):
        training = not loaders
        dynamic = training and binarize == "dynamic"
        if binarize is not None:
            check_binarized(part, binarize)
            x = part.x if dynamic else binarized(part.x, binarize, static_seed)
            part = replace(part, x=x, reading=replace(part.reading, binarize=binarize))
        loader = Loader.of(part.of_kind(kind), batch_size, training, dynamic, seed)
        loaders.append(loader.to(device))
    _check_seen(parts[0])
    return Splits(*loaders)


def check_binarized(rows: Rows, binarize: Binarize) -> None:
    """Raise ValueError if the rows are not greys that could be binarised."""
    if rows.kind == "sequence" or rows.missing:
        what = "sequences" if rows.kind == "sequence" else "data with missing entries"
        raise ValueError(f"binarize={binarize!r} is for greys in [0, 1], got {what}: leave it out")
    check_unit_interval(rows.x, f"binarize={binarize!r}")


def _kind_of_all(parts: Sequence[Rows]) -> Kind:
    """One kind for the three parts: zeros and ones in one of them alone do not make it binary."""
    found = [tell_kind(part) for part in parts]
    return next(kind for kind in WIDEST_FIRST if kind in found)


def _check_seen(train: Rows) -> None:
    steps = train.x if train.x.ndim == 2 else train.x[steps_within(train["lengths"], train.x.shape[1])]
    unseen = steps.isnan().all(0) if train.missing else None
    if unseen is not None and unseen.any():
        k = int(unseen.nonzero()[0])
        name = f"column {k} (from 0)" if train.columns is None else train.columns[k]
        raise ValueError(
            f"x must hold each column in training, got {name} missing in all rows: --drop-columns takes it out"
        )
