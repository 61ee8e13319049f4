"""Data by a word, for scripts."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from dlvm.experiments.data.arguments import check_path
from dlvm.experiments.data.images import binarized_mnist, digits, fashion_mnist, mnist
from dlvm.experiments.data.named.pictures import cifar10, omniglot
from dlvm.experiments.data.named.scattered import multi_digits, multi_mnist
from dlvm.experiments.data.named.sequences import jsb, names, shakespeare, zinc
from dlvm.experiments.data.named.simulated import cells
from dlvm.experiments.data.named.tables import air_quality, sky
from dlvm.experiments.data.readers.any_file import KINDS, is_readable
from dlvm.experiments.data.splits import Binarize, Splits
from dlvm.experiments.data.user_data import from_file

NAMED: dict[str, Callable[..., Splits]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "binarized_mnist": binarized_mnist,
    "multi_digits": multi_digits,
    "multi_mnist": multi_mnist,
    "omniglot": omniglot,
    "cifar10": cifar10,
    "jsb": jsb,
    "names": names,
    "shakespeare": shakespeare,
    "zinc": zinc,
    "sky": sky,
    "air_quality": air_quality,
    "cells": cells,
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
    *,
    label_column: str | None = None,
    index_column: str | None = None,
    split_column: str | None = None,
    columns: Sequence[str] | None = None,
    drop_columns: Sequence[str] | None = None,
    missing: Sequence[str] | None = None,
    sequence_column: str | None = None,
    time_column: str | None = None,
    time_step: float | None = None,
    text_column: str | None = None,
    lines: bool = False,
) -> Splits:
    """The loaders of a data set by its name, or of a file by its path.

    Returns: `Splits` of the data set of that name; or those of `from_file(name, ...)` if `name` is a path.
    Args:
        name: a word of `NAMED`, or a path.
        binarize: "default" leaves the choice to the data set: "dynamic" for greys, None for the others.
        data_dir: where the files of a named data set lie; digits are embedded, a path is a path.
        key, scale, label_column, index_column, split_column, columns, drop_columns, missing, sequence_column,
            time_column, time_step, text_column, lines: for files only, as in `from_file`.
        batch_size, device, seed: as in `mnist`.
    Raises: ValueError for an unknown name, or what is for files with a named data set; and as that data set.

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
    for_files: dict[str, Any] = {
        "key": key, "scale": scale, "label_column": label_column, "index_column": index_column,
        "split_column": split_column, "columns": columns, "drop_columns": drop_columns, "missing": missing,
        "sequence_column": sequence_column, "time_column": time_column, "time_step": time_step,
        "text_column": text_column, "lines": lines,
    }  # fmt: skip
    if isinstance(name, str) and name in NAMED:
        asked = {option: value for option, value in for_files.items() if value is not None and value is not False}
        if asked:
            named = f"{' and '.join(asked)} {'is' if len(asked) == 1 else 'are'}"
            raise ValueError(f"{named} for files, got {asked} for {name}: leave them out")
        if name != "digits":
            options["data_dir"] = data_dir
        return NAMED[name](**options)
    if not str(name).strip() or not is_readable(Path(name)):
        near = difflib.get_close_matches(str(name), NAMED, 1)
        meant = f": {near[0]} is the nearest" if near else ""
        raise ValueError(f"name must be {', '.join(NAMED)} or the path of {KINDS} (--data), got {name!r}{meant}")
    return from_file(name, **for_files, **options)
