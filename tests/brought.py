"""What people bring: ways to make small files and objects, each a function of a folder that returns what is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas
import torch
from PIL import Image
from scipy import sparse

Make = Callable[[Path], Any]
COUNTS = np.array([[0, 3, 1], [2, 0, 0], [5, 1, 4], [1, 1, 0]])
CELLS = ["c1", "c2", "c3", "c4"]
TYPES = ["T", "B", "T", "B"]
RGB = np.arange(4 * 2 * 3 * 3, dtype=np.uint8).reshape(4, 2, 3, 3)  # rows, height, width, channels
RGB[-1, -1, -1, -1] = 255


def text(content: str | bytes, name: str = "x.csv") -> Make:
    """A file of that text."""

    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder / name

    return make


def npy(x: Any) -> Make:
    """A .npy file."""

    def make(folder: Path) -> Path:
        np.save(folder / "x.npy", x)
        return folder / "x.npy"

    return make


def npz(**arrays: Any) -> Make:
    """A .npz file."""

    def make(folder: Path) -> Path:
        np.savez(folder / "x.npz", **arrays)
        return folder / "x.npz"

    return make


def csv_of(frame: pandas.DataFrame, **how: Any) -> Make:
    """What pandas writes by itself."""
    return text(frame.to_csv(**how))


def it(x: Any) -> Make:
    """An object as it is."""
    return lambda folder: x


def pictures(**levels: np.ndarray) -> Make:
    """A folder of .png files; __ in a name is a /."""

    def make(folder: Path) -> Path:
        for name, pixels in levels.items():
            path = folder / "pictures" / f"{name.replace('__', '/')}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        return folder / "pictures"

    return make


def beside(make: Make, content: bytes, name: str) -> Make:
    """The same with one more file in the folder."""

    def more(folder: Path) -> Path:
        made = make(folder)
        (made / name).write_bytes(content)
        return made

    return more


def h5ad(how: str = "csr", **changed: Any) -> Make:
    """A file as anndata writes it: counts, names of cells and genes, types of cells by codes, a layer."""

    def make(folder: Path) -> Path:
        with h5py.File(folder / "x.h5ad", "w") as file:
            if how == "dense":
                file["X"] = COUNTS
            else:
                _sparse(file.create_group("X"), COUNTS, how)
            file["layers/doubled"] = 2 * COUNTS
            for axis, names in (("obs", CELLS), ("var", ["g1", "g2", "g3"])):
                file.create_group(axis).attrs["_index"] = "names"
                file[f"{axis}/names"] = names
            codes = file.create_group("obs/type")
            codes["categories"], codes["codes"] = ["B", "T"], np.array([1, 0, 1, 0], np.int8)
            file["obs/depth"] = COUNTS.sum(1)
            for name, value in changed.items():
                del file[name]
                file[name] = value
        return folder / "x.h5ad"

    return make


def _sparse(group: h5py.Group, x: np.ndarray, how: str) -> None:
    made = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix}[how](x)
    group.attrs["encoding-type"], group.attrs["shape"] = f"{how}_matrix", x.shape
    for name in ("data", "indices", "indptr"):
        group[name] = getattr(made, name)


class Items(torch.utils.data.Dataset):
    """A data set of the items of a list."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, k: int) -> Any:
        return self.items[k]


class Endless(torch.utils.data.IterableDataset):
    """One without a length."""

    def __iter__(self):
        while True:
            yield torch.zeros(3)


FRAME = pandas.DataFrame(COUNTS, index=CELLS, columns=["g1", "g2", "g3"]).assign(type=TYPES)
