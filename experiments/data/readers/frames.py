"""Frames of pandas, and parquet files, as tables."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from dlvm.experiments.data.readers.found import Roles, needed
from dlvm.experiments.data.readers.tables import Table, unique_names


def is_frame(x: Any) -> bool:
    """Whether it is a DataFrame; pandas is not imported to find out."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(x, pandas.DataFrame)


def frame_table(frame: Any, origin: str) -> Table:
    """The columns of a frame: numbers as they are, all else as text; an index that does not just count names the rows.

    Raises: ValueError if the frame is empty, or two columns have one name.
    """
    pandas: ModuleType = sys.modules["pandas"]
    if not len(frame) or not len(frame.columns):
        raise ValueError(f"{origin} must hold at least one row and one column, got a frame of shape {frame.shape}")
    names = unique_names(origin, [str(name) for name in frame.columns])
    columns = tuple(_column(pandas, frame.iloc[:, k]) for k in range(len(names)))
    counts = isinstance(frame.index, pandas.RangeIndex)
    index = None if counts or not frame.index.is_unique else [str(name) for name in frame.index]
    return Table(origin, names, columns, index=index)


def _column(pandas: ModuleType, series: Any) -> np.ndarray:
    kinds = pandas.api.types
    if kinds.is_numeric_dtype(series.dtype) and not kinds.is_complex_dtype(series.dtype):
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.array(["" if gone else str(cell) for cell, gone in zip(series, series.isna(), strict=True)], object)


def read_parquet(path: Path, roles: Roles) -> Table:
    """The table in a parquet file.

    Raises: ValueError if it cannot be read, or that names the package where there is none to read it.
    """
    roles.refuse_key(path.name)
    pandas = needed("pandas", path.name)
    try:
        frame = pandas.read_parquet(path)
    except ImportError as error:
        raise ValueError(f"{path.name} needs pyarrow to be read: pip install pyarrow") from error
    except Exception as error:  # a parser of hostile bytes may fail in any way; each is told as one
        raise ValueError(f"{path} is no readable parquet file ({error}): it is damaged; write it anew") from error
    return frame_table(frame, str(path))
