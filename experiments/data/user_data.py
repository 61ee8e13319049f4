"""Your own data: a tensor, or a file of numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlvm.experiments.data.arguments import check_labels, check_path
from dlvm.experiments.data.checks import as_matrix, from_numpy
from dlvm.experiments.data.readers import open_arrays, read_csv
from dlvm.experiments.data.splits import Binarize, Splits, check_options, make_splits, split_rows


def from_tensor(
    x: Tensor | np.ndarray,
    batch_size: int = 100,
    binarize: Binarize | None = None,
    valid: int | float = 0.1,
    test: int | float = 0.1,
    seed: int = 0,
    *,
    scale: float = 1.0,
    labels: Tensor | np.ndarray | None = None,
    device: str | torch.device = "cpu",
    name: str = "",
) -> Splits:
    """Loaders of your own rows, cut by one fixed permutation into train, valid and test.

    Returns: `Splits`; the same rows in the same part whatever the `seed`. Images become rows, and the loaders
        remember their `image_shape`.
    Args:
        x: (N, D), or images (N, H, W) or (N, C, H, W); real numbers, finite.
        batch_size: rows in a batch.
        binarize: "static", "dynamic" or "threshold" for x / scale in [0, 1]; None leaves the numbers alone.
        valid, test: number of rows (int) or fraction of them (float).
        seed: of the shuffling and the dynamic draws.
        scale: x is divided by it, 255 for 8-bit images; nothing is ever rescaled unasked.
        labels: (N,) integers, for figures.
        device: where the data are kept.
        name: for tables and titles.
    Raises: TypeError if x does not hold real numbers; ValueError if it is empty, not finite, of another
        number of dimensions, too short to split, or outside [0, 1] where it is to be binarised.

    Example:
        >>> train, valid, test = from_tensor(torch.rand(50, 3, 4), binarize="dynamic")
        >>> train.num_data, valid.num_data, test.num_data, train.image_shape
        (40, 5, 5, (3, 4))
    """
    check_options(binarize, batch_size, device, seed)
    matrix, image_shape = as_matrix(x, scale)
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "biu":
        labels = from_numpy(labels)
    if labels is not None:
        labels = check_labels(labels, len(matrix))
    rows = [r.to(matrix.device) for r in split_rows(len(matrix), valid, test)]
    parts = [matrix[r] for r in rows]
    ys = [None if labels is None else labels[r.to(labels.device)] for r in rows]
    return make_splits(parts, binarize, batch_size, device, seed, ys, image_shape, name)


def from_file(path: str | Path, key: str | None = None, **options: Any) -> Splits:
    """Loaders of the rows of a file of numbers: .npy, .npz or .csv.

    Returns: as `from_tensor`; `name` is the file's stem unless it is given.
    Args: `key` names the array of an npz that holds several; `options` are those of `from_tensor`. A csv is
        split at commas; its first line is a header if no cell of it is a number. Pickles are never loaded.
    Raises: FileNotFoundError if there is no such file; ValueError if it cannot be read, with the line and the
        column for a csv; and as `from_tensor`.
    """
    path = check_path("path", path)
    if not path.is_file():
        raise FileNotFoundError(f"path: no file {path} (--data): give the path of a .npy, .npz or .csv file")
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".npz", ".csv"):
        raise ValueError(f"path must end in .npy, .npz or .csv, got {path.name}: convert it by numpy.save")
    if key is not None and suffix != ".npz":
        raise ValueError(f"key={key!r} names an array of a .npz file, got {path.name}: leave it out")
    x = read_csv(path) if suffix == ".csv" else _pick(path, open_arrays(path), key)
    return from_tensor(x, **{"name": path.stem, **options})


def _pick(path: Path, arrays: dict[str, np.ndarray], key: str | None) -> np.ndarray:
    if key is None and len(arrays) == 1:
        return next(iter(arrays.values()))
    if not isinstance(key, str) or key not in arrays:
        raise ValueError(f"key must name one of the arrays of {path.name}, {sorted(arrays)}, got {key!r}")
    return arrays[key]
