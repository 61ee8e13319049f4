"""Annotated matrices of AnnData: cells x genes with a table of cells beside them; objects, and .h5ad files."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from dlvm.experiments.data.readers.found import MOST_ENTRIES, Found, Roles, dense, needed
from dlvm.experiments.data.readers.frames import frame_table
from dlvm.experiments.data.readers.tables import Table, annotated


def is_annotated(x: Any) -> bool:
    """Whether it is an AnnData; anndata is not imported to find out."""
    anndata = sys.modules.get("anndata")
    return anndata is not None and isinstance(x, anndata.AnnData)


def annotated_object(x: Any, roles: Roles, origin: str) -> Found:
    """X of an AnnData, or the layer that ``key`` names, with its names of cells and genes; labels come from obs."""
    if roles.key is not None and roles.key not in x.layers:
        raise ValueError(
            f"key (--key) must name a layer of {origin}, {sorted(x.layers)}, got {roles.key!r}: or X without"
        )
    matrix = x.X if roles.key is None else x.layers[roles.key]
    names = list(map(str, x.obs_names))
    cells = Table(origin, (), ()) if not len(x.obs.columns) else frame_table(x.obs, origin)
    return annotated(dense(matrix, origin), list(map(str, x.var_names)), replace(cells, index=names), roles)


def read_h5ad(path: Path, roles: Roles) -> Found:
    """The same of a .h5ad file, which is read by h5py: of obs the columns that the options name.

    Raises: ValueError if it cannot be read, or is laid out otherwise, or that names the package to install.
    """
    h5py = needed("h5py", path.name)
    place = "X" if roles.key is None else f"layers/{roles.key}"
    try:
        with h5py.File(path) as file:
            layers, there = sorted(file.get("layers", ())), place in file
            matrix = _matrix(file[place]) if there else np.empty((0, 0))
            genes, cells = (_column(file[axis][_index_name(file[axis])]).tolist() for axis in ("var", "obs"))
            about = _table(file["obs"], str(path), roles)
    except Exception as error:  # a parser of hostile bytes may fail in any way; each is told as one
        raise ValueError(
            f"{path} is no readable .h5ad file ({error}): write it anew by AnnData.write_h5ad of a recent anndata"
        ) from error
    if not there:
        raise ValueError(f"key (--key) must name a layer of {path.name}, {layers}, got {roles.key!r}")
    return annotated(dense(matrix, str(path)), genes, replace(about, index=cells), roles)


def _matrix(stored: Any) -> Any:
    if not hasattr(stored, "keys"):
        return _numbers(stored)
    kind, shape = stored.attrs["encoding-type"], tuple(int(size) for size in stored.attrs["shape"])
    make = {"csr_matrix": sparse.csr_matrix, "csc_matrix": sparse.csc_matrix}[kind]
    made = make(tuple(_numbers(stored[name]) for name in ("data", "indices", "indptr")), shape=shape)
    try:
        made.check_format(full_check=True)  # indices beyond the shape would be written beyond the memory
    except ValueError as error:
        raise TypeError(f"its indices are damaged: {error}") from error
    return made


def _numbers(stored: Any) -> np.ndarray:
    if stored.size > MOST_ENTRIES:  # a few bytes may claim any size
        raise TypeError(f"it claims {stored.size} numbers, more than {MOST_ENTRIES}")
    return stored[()]


def _index_name(group: Any) -> str:
    name = group.attrs["_index"]
    return name.decode() if isinstance(name, bytes) else str(name)


def _table(obs: Any, origin: str, roles: Roles) -> Table:
    """The columns of obs by name; only those that an option names are read."""
    wanted = (roles.label_column, roles.index_column, roles.split_column)
    names = tuple(name for name in obs if name not in (_index_name(obs), "__categories"))
    return Table(origin, names, tuple(_column(obs[name]) if name in wanted else np.empty(0) for name in names))


def _column(stored: Any) -> np.ndarray:
    """Numbers (float64) or text (objects): plain, by codes of categories, or with a mask of what is not there."""
    if hasattr(stored, "keys") and "codes" in stored:
        names, codes = _column(stored["categories"]), stored["codes"][()]
        words = np.array([str(name) for name in names], object)
        return np.array(["" if code < 0 else words[code] for code in codes], object)
    if hasattr(stored, "keys"):
        values = stored["values"][()].astype(np.float64)
        return np.where(stored["mask"][()], np.nan, values)
    values = stored[()]
    if values.dtype.kind in "OS":
        return np.array([word.decode() if isinstance(word, bytes) else str(word) for word in values], object)
    return values.astype(np.float64)
