"""Three loaders over rows that do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from dlvm.experiments.data.arguments import check_count, check_device, check_seed, is_whole
from dlvm.experiments.data.checks import check_unit_interval
from dlvm.experiments.data.loader import Loader, draw, stream

Binarize = Literal["static", "dynamic", "threshold"]

SPLIT_SEED = 0  # one permutation for everybody: runs with different seeds are judged on the same test rows
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


def split_rows(n: int, valid: int | float, test: int | float) -> tuple[Tensor, Tensor, Tensor]:
    """A fixed permutation of 0..n-1, cut into rows for train, valid and test.

    Returns: three int64 vectors without a common entry, which together hold every row once.
    Args: `valid` and `test` are numbers of rows if int, fractions in (0, 1) if float (at least one row each).
    Raises: ValueError if a part would be empty.

    Example:
        >>> [len(rows) for rows in split_rows(10, valid=0.2, test=3)]
        [5, 2, 3]
    """
    sizes = []
    for name, size in (("valid", valid), ("test", test)):
        number = isinstance(size, Real) and not isinstance(size, bool)
        if not number or not (size >= 1 if is_whole(size) else 0 < size < 1):
            raise ValueError(f"{name} must be a fraction in (0, 1) or a number of rows, got {size!r}: 0.1 is usual")
        sizes.append(int(size) if is_whole(size) else max(1, round(n * float(size))))
    if n - sum(sizes) < 1:
        raise ValueError(
            f"x has {n} row{'s' * (n > 1)}, too few for valid={valid} and test={test}: train, valid and test "
            "need at least one each; lower the two, or use Loader(x) for all rows in one loader"
        )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(SPLIT_SEED))
    train, valid_rows, test_rows = order.split([n - sum(sizes), *sizes])
    return train, valid_rows, test_rows


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
    parts: Sequence[Tensor],
    binarize: Binarize | None,
    batch_size: int,
    device: str | torch.device,
    seed: int,
    labels: Sequence[Tensor | None] = (None, None, None),
    image_shape: tuple[int, ...] | None = None,
    name: str = "",
) -> Splits:
    """Loaders of the three parts, each (N, D), binarised as the public functions of this room say.

    "dynamic" holds for the training part alone: validation and test are then the static draws, so that all
    runs are judged on the same data. The static draws are the same for every `seed`.

    Args: as `check_options` lets them pass.
    Raises: ValueError for values outside [0, 1] where they are binarised.
    """
    loaders: list[Loader] = []
    for part, y, static_seed in zip(parts, labels, STATIC_SEEDS, strict=True):
        training = not loaders
        dynamic = training and binarize == "dynamic"
        if binarize is not None:
            check_unit_interval(part, f"binarize={binarize!r}")
            part = part if dynamic else binarized(part, binarize, static_seed)
        loader = Loader(part, batch_size, training, dynamic, seed, y, image_shape, name)
        loaders.append(loader.to(device))
    return Splits(*loaders)
