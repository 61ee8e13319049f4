"""Data by a word, for scripts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from dlvm.experiments.data.arguments import check_path
from dlvm.experiments.data.images import binarized_mnist, digits, fashion_mnist, mnist
from dlvm.experiments.data.splits import Binarize, Splits
from dlvm.experiments.data.user_data import from_file

NAMED: dict[str, Callable[..., Splits]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "binarized_mnist": binarized_mnist,
}


def load(
    name: str,
    binarize: Binarize | Literal["default"] | None = "default",
    batch_size: int = 100,
    data_dir: str | Path | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
    key: str | None = None,
    scale: float | None = None,
) -> Splits:
    """The loaders of a data set by its name, or of a file by its path.

    Returns: `Splits` of digits, mnist, fashion_mnist or binarized_mnist; or those of `from_file(name, ...)`
        if `name` ends in .npy, .npz or .csv.
    Args:
        name: one of the four, or a path.
        binarize: "default" leaves the choice to the data set: "dynamic" for greys, None for the others.
        data_dir: where the files of a named data set lie; digits are embedded, a path is a path.
        key, scale: for files only, as in `from_file` and `from_tensor`.
        batch_size, device, seed: as in `mnist`.
    Raises: ValueError for an unknown name, or key or scale with a named data set; and as that data set.

    Example:
        >>> load("digits", binarize="static").train
        Loader(digits: 1297 x 64, 13 batches of 100, shuffled)
    """
    if not isinstance(name, str | Path):
        raise TypeError(f"name must be a str, one of {', '.join(NAMED)} or a path, got {type(name).__name__}")
    if data_dir is not None:
        check_path("data_dir", data_dir)
    options: dict[str, Any] = {"batch_size": batch_size, "device": device, "seed": seed}
    if not (isinstance(binarize, str) and binarize == "default"):
        options["binarize"] = binarize
    if isinstance(name, str) and name in NAMED:
        if key is not None or scale is not None:
            raise ValueError(f"key and scale are for files, got {key=}, {scale=} for {name}: leave them out")
        if name != "digits":
            options["data_dir"] = data_dir
        return NAMED[name](**options)
    if Path(name).suffix.lower() not in (".npy", ".npz", ".csv"):
        raise ValueError(f"name must be {', '.join(NAMED)} or a path to .npy, .npz or .csv (--data), got {name!r}")
    return from_file(name, key, scale=1.0 if scale is None else scale, **options)
