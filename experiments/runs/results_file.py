"""What a trained pair says of some rows, as a file: a table, arrays or images, by the name's ending."""

from __future__ import annotations

import csv
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from dlvm.inference.use.by_datum import columns as numbered

SUFFIXES = (".csv", ".tsv", ".npy", ".npz", ".parquet", ".png")


@dataclass(frozen=True)
class Results:
    """Numbers with the names of their columns and rows, and what else is known.

    Attributes:
        numbers: shape (rows, columns).
        columns: their names.
        index: names of the rows, None where they are known by their order alone.
        arrays: {name: array} of all that was found, for an .npz.
        images: rows of images, shape (images, x_dim), and how many stand side by side; None where there are none.
        image_shape: of one of them.
        index_name: what the column of the rows' names is called.
        texts: what stands in the one column in place of numbers.
    """

    numbers: Tensor
    columns: Sequence[str]
    index: Sequence[str] | None = None
    arrays: Mapping[str, Any] = field(default_factory=dict)
    images: tuple[Tensor, int] | None = None
    image_shape: tuple[int, ...] | None = None
    index_name: str = "id"
    texts: Sequence[str] | None = None


def check_out(out: Path | None, overwrite: bool) -> None:
    """Refuses a file that cannot be written, before anything is computed.

    Raises:
        ValueError: the ending is none of ours, there is such a file, or no such folder.
    """
    if out is None:
        return
    if out.suffix.lower() not in SUFFIXES:
        raise ValueError(f"out (--out) must end in {', '.join(SUFFIXES)}, got {out.name!r}")
    if out.exists() and not overwrite:
        raise ValueError(f"out (--out) {out} exists; name another file, or add --overwrite")
    if not out.parent.is_dir():
        raise ValueError(f"out (--out) {out} lies in no folder that exists; make {out.parent} first")
    if out.suffix.lower() == ".parquet":
        _pandas()


def write(results: Results, out: Path | None) -> None:
    """Writes results to a file, or as a table to standard output.

    Raises:
        ValueError: they are no images, for a .png.
    """
    if out is None:
        try:
            _table(results, sys.stdout, ",")
            sys.stdout.flush()
        except BrokenPipeError:  # who reads has had enough, as head has
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    suffix = out.suffix.lower()
    if suffix in (".csv", ".tsv"):
        with out.open("w", encoding="utf-8", newline="") as file:
            _table(results, file, "," if suffix == ".csv" else "\t")
    elif suffix == ".npy":
        np.save(out, results.numbers.numpy())
    elif suffix == ".npz":
        _arrays(results, out)
    elif suffix == ".parquet":
        values = results.numbers.numpy() if results.texts is None else list(results.texts)
        frame = _pandas().DataFrame(values, index=results.index, columns=list(results.columns))
        frame.rename_axis(index=None if results.index is None else results.index_name).to_parquet(out)
    else:
        _image(results, out)


def _table(results: Results, file: IO[str], separator: str) -> None:
    """A header, and a row for each datum with its id before it; numbers to their last digit."""
    writer = csv.writer(file, delimiter=separator, lineterminator="\n")
    ids = results.index
    writer.writerow(([] if ids is None else [results.index_name]) + list(results.columns))
    digits = 17 if results.numbers.dtype is torch.float64 else 9
    for i, row in enumerate(results.numbers.tolist()):
        cells = ["" if math.isnan(value) else f"{value:.{digits}g}" for value in row]
        cells = cells if results.texts is None else [results.texts[i]]
        writer.writerow(([] if ids is None else [ids[i]]) + cells)


def _arrays(results: Results, out: Path) -> None:
    found = {name: np.asarray(value) for name, value in results.arrays.items() if value is not None}
    found = found or {"x": results.numbers.numpy(), "columns": np.array(list(results.columns))}
    if results.index is not None and len(results.index) == len(next(iter(found.values()))):
        found["index"] = np.array(list(results.index))
    np.savez(out, **found)  # type: ignore[arg-type]  # names of arrays are no options


def _image(results: Results, out: Path) -> None:
    from matplotlib.image import imsave

    from dlvm.experiments.figures.images import limits, mosaic

    if results.images is None or results.image_shape is None:
        raise ValueError(f"out (--out) {out.name} is to be a picture, and there are no images; write a .csv or .npz")
    images, columns = results.images
    imsave(out, mosaic(images.float(), results.image_shape, columns, *limits([images.float()])).numpy())


def _pandas() -> Any:
    try:
        import_module("pyarrow")  # what pandas writes parquet by
        return import_module("pandas")
    except ImportError as error:
        raise ValueError(f"out (--out) .parquet needs {error.name}; install it, or write .csv") from error


def columns_of(site: str, number: int, values: Tensor | None) -> list[str]:
    """Names of a site's columns; of a class those of its values.

    Example:
        >>> columns_of("y", 2, torch.tensor([0, 1]))
        ['y=0', 'y=1']
    """
    if values is None or values.dim() > 1 or number % len(values):
        return numbered(site, number)
    places = numbered(site, number // len(values))
    return [f"{place}={value:g}" for place in places for value in values.tolist()]
