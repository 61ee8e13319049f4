"""Data that are simulated, so that all is known of them: counts of cells of known classes in known batches."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dlvm.experiments.data.draws import stream
from dlvm.experiments.data.prepare import cut
from dlvm.experiments.data.rows import Rows
from dlvm.experiments.data.splits import Binarize, Splits, check_options, make_splits

ROWS, GENES, BATCHES = 3000, 100, 3
SHARES = (0.35, 0.25, 0.2, 0.12, 0.08)  # of the classes, in every batch
SIZE, SIZE_SPREAD = 6.0, 0.35  # of log counts of a cell


def cells(
    binarize: Binarize | None = None,
    batch_size: int = 100,
    data_dir: str | Path | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> Splits:
    """3,000 simulated cells, counts of 100 genes; `labels` are 5 classes, `b` is one of 3 batches, whatever the class.

        x_d ~ NB(l s_d, dispersion_d),   s = softmax(base + class_y + W u + batch_b),   u ~ N(0, I) of 2 numbers,
        log l ~ N(6, 0.35^2)

    Always the same cells; `seed` is of the order of batches of data alone.

    Returns: 2,000 cells for training, 400 for validation and 600 for test.
    Args: `binarize` is None; `data_dir` is not looked at; the others as in `mnist`.
    Raises: ValueError for another `binarize`.
    """
    if binarize is not None:
        raise ValueError(f"binarize must be None for cells, whose numbers are counts, got {binarize!r}; leave it out")
    check_options(binarize, batch_size, device, seed)
    x, y, b = simulated_counts(ROWS, GENES, 2026)
    names = tuple(f"gene {d}" for d in range(GENES))
    rows = Rows(x, y, None, "cells", {"b": b}, names, kind="count")
    return make_splits(cut(rows, None, 400, 600), None, batch_size, device, seed)


def simulated_counts(rows: int, genes: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Counts (rows, genes), the class and the batch of each row; see ``cells``."""
    generator = stream(seed, torch.device("cpu"))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def numbers(shares: Tensor) -> Tensor:
        return torch.multinomial(shares, rows, replacement=True, generator=generator)

    y, b = numbers(torch.tensor(SHARES)), numbers(torch.ones(BATCHES))
    marks = torch.rand(len(SHARES), genes, generator=generator) < 0.25  # genes by which a class differs
    profiles = normal(genes) + (marks * 1.2 * normal(len(SHARES), genes))[y] + 0.6 * normal(BATCHES, genes)[b]
    profiles = profiles + normal(rows, 2) @ (0.25 * normal(2, genes))
    size = (SIZE + SIZE_SPREAD * normal(rows)).exp()
    rate = profiles.softmax(-1) * size[:, None]
    r = 1 / (0.3 + 0.7 * torch.rand(genes, generator=generator)).expand(rows, genes)
    gamma = torch._standard_gamma(r, generator=generator)
    return torch.poisson(gamma / r * rate, generator=generator), y, b
