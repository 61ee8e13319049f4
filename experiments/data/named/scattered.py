"""Images with several digits on them, one, or none, made of the digits themselves."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dlvm.experiments.data.draws import stream
from dlvm.experiments.data.images import digits, mnist
from dlvm.experiments.data.rows import Reading, Rows
from dlvm.experiments.data.splits import Binarize, Splits, check_options, make_splits

MOST = 2  # digits on an image
MARGIN = 4  # pixels around each digit of MNIST in which there is no ink
PART_SEEDS = (11, 12, 13)  # of the places in train, valid and test
ROWS = (10_000, 1_000, 2_000)


def multi_digits(
    binarize: Binarize | None = None,
    batch_size: int = 100,
    data_dir: str | Path | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> Splits:
    """24 x 24 images of none, one or two of the 8 x 8 digits, whose squares do not overlap; `labels` are how many.

    Each number of digits has a third of the images. The digits of training, validation and test images are those of
    the same parts of `digits`. Always the same images; `seed` is of the order of batches alone.

    Returns: 10,000 training, 1,000 validation and 2,000 test rows of x_dim 576, greys.
    Args: `data_dir` is not looked at; `binarize` and the others as in `digits`.
    Raises: as `digits`.
    """
    check_options(binarize, batch_size, device, seed)
    parts = digits(None)
    return _scattered(
        [part.x.reshape(-1, 8, 8) for part in parts], 24, "multi_digits", binarize, batch_size, device, seed
    )


def multi_mnist(
    binarize: Binarize | None = None,
    batch_size: int = 100,
    data_dir: str | Path | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> Splits:
    """50 x 50 images of none, one or two digits of MNIST, in all else as `multi_digits`.

    Of each digit the 20 x 20 pixels in the middle are taken, which hold its ink.

    Returns: 10,000 training, 1,000 validation and 2,000 test rows of x_dim 2500, greys.
    Args, Raises: as `mnist`.
    """
    check_options(binarize, batch_size, device, seed)
    parts = mnist(None, data_dir=data_dir)
    inner = slice(MARGIN, 28 - MARGIN)
    pictures = [part.x.reshape(-1, 28, 28)[:, inner, inner] for part in parts]
    return _scattered(pictures, 50, "multi_mnist", binarize, batch_size, device, seed)


def _scattered(
    pictures: list[Tensor],
    side: int,
    name: str,
    binarize: Binarize | None,
    batch_size: int,
    device: str | torch.device,
    seed: int,
) -> Splits:
    found = []
    for part, rows, part_seed in zip(pictures, ROWS, PART_SEEDS, strict=True):
        x, y = scattered(part, rows, side, part_seed)
        found.append(Rows(x, y, (side, side), name, kind="grey", reading=Reading(scale=1.0)))
    return make_splits(found, binarize, batch_size, device, seed)


def scattered(pictures: Tensor, rows: int, side: int, seed: int) -> tuple[Tensor, Tensor]:
    """Square images with small square pictures on them, none overlapping another, and how many there are.

    Returns: shape (rows, side^2), and (rows,) of 0, 1 or 2.
    Args: `pictures` of shape (n, size, size) with 2 size <= side; `seed` of which, where, and how many.
    """
    generator, size = stream(seed, torch.device("cpu")), pictures.shape[-1]

    def whole(below: int, *shape: int) -> Tensor:
        return torch.randint(below, shape, generator=generator)

    count = whole(MOST + 1, rows)
    corners, chosen = whole(side - size + 1, rows, MOST, 2), whole(len(pictures), rows, MOST)
    while (overlapping := (corners[:, 0] - corners[:, 1]).abs().amax(-1) < size).any():
        corners[overlapping] = whole(side - size + 1, int(overlapping.sum()), MOST, 2)
    x = pictures.new_zeros(rows, side, side)
    for row in range(rows):
        for (top, left), which in zip(corners[row, : count[row]].tolist(), chosen[row].tolist(), strict=False):
            x[row, top : top + size, left : left + size] = pictures[which]
    return x.flatten(1), count
