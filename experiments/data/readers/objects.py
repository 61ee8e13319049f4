"""Objects that hold data: arrays, sparse matrices, frames, AnnData, and torch's data sets and loaders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from dlvm.experiments.data.readers.annotated import annotated_object, is_annotated
from dlvm.experiments.data.readers.found import Found, Roles, dense
from dlvm.experiments.data.readers.frames import frame_table, is_frame
from dlvm.experiments.data.readers.long_tables import assign
from dlvm.experiments.data.readers.writing import written
from dlvm.inference.console import say


def read_object(x: Any, roles: Roles, origin: str) -> Found:
    """What an object holds, as a file of its kind would; what is none of these is passed on as it is."""
    if is_annotated(x):
        return annotated_object(x, roles, origin)
    roles.refuse_key(origin)
    if is_frame(x):
        return assign(frame_table(x, origin), roles)
    roles.refuse_columns(origin)
    if sparse.issparse(x):
        return Found(dense(x, origin), origin=origin)
    if isinstance(x, list | tuple) and x:
        return _listed(list(x), roles, origin)
    if isinstance(x, DataLoader):
        return _collected(list(_known(x, origin)), origin, torch.cat)
    if isinstance(x, Dataset):
        return _collected([x[k] for k in range(_length(x, origin))], origin, torch.stack)
    return Found(x, origin=origin)


def _listed(items: list[Any], roles: Roles, origin: str) -> Found:
    """Texts, or arrays of one sequence each, as sequences; a list of anything else is passed on as it is."""
    if all(isinstance(item, str) for item in items):
        return written(items, roles.vocabulary, origin)
    if not all(isinstance(item, np.ndarray | Tensor) and item.ndim in (1, 2) for item in items):
        return Found(items, origin=origin)
    arrays = [np.asarray(item.detach().cpu() if isinstance(item, Tensor) else item) for item in items]
    kinds = {(array.shape[1:], array.dtype.kind == "f") for array in arrays}
    if len(kinds) > 1:
        shapes = sorted({array.shape[1:] for array in arrays})
        got = f"steps of shapes {shapes}" if len(shapes) > 1 else "whole numbers in some, and real ones in others"
        raise ValueError(f"{origin} must hold sequences whose steps are alike, got {got}: make them one")
    lengths = np.array([len(array) for array in arrays])
    if not lengths.min():
        k = int(lengths.argmin())
        raise ValueError(f"{origin} must hold sequences of at least one step, got none in {k} (from 0): take it out")
    x = np.zeros((len(arrays), int(lengths.max()), *arrays[0].shape[1:]), arrays[0].dtype)
    for row, array in zip(x, arrays, strict=True):
        row[: len(array)] = array
    return Found(x, more={"lengths": lengths}, origin=origin)


def _known(loader: DataLoader, origin: str) -> Iterable[Any]:
    """A loader with an end and an order: rows that came in another one each time would be cut into other parts."""
    _length(loader.dataset, origin)
    if isinstance(loader.sampler, RandomSampler):
        raise ValueError(
            f"{origin} must be a DataLoader with an order, got one that shuffles: pass its dataset instead"
        )
    say(f"{origin}: a DataLoader is read once, in its own order; what it draws at random stays as it was drawn")
    return loader


def _length(dataset: Any, origin: str) -> int:
    """How many there are; what has no end is refused."""
    if not hasattr(dataset, "__len__"):
        raise TypeError(
            f"{origin} must be a data set with a length, got {type(dataset).__name__}: give a part as a tensor"
        )
    if len(dataset) == 0:
        raise ValueError(f"{origin} must not be empty, got a {type(dataset).__name__} of length 0")
    return len(dataset)


def _collected(items: list[Any], origin: str, together: Any) -> Found:
    """Items or batches that are x, (x, label) or {name: tensor}, as one array each."""
    rows = [_named(item, origin) for item in items]
    if any(set(row) != set(rows[0]) for row in rows):
        raise ValueError(
            f"{origin} must hold items of one kind, got some with {sorted(rows[0])} and others: make them alike"
        )
    found: dict[str, Tensor] = {}
    for name in rows[0]:
        try:
            found[name] = together([_tensor(row[name], origin) for row in rows])
        except RuntimeError as error:
            raise ValueError(
                f"{origin} must hold items of one shape, got others in {name} ({error}): fill them up"
            ) from error
    x, labels = found.pop("x"), found.pop("y", None)
    if labels is not None and (labels.is_floating_point() or labels.ndim != 1):
        found["y"], labels = labels, None
    return Found(x, labels, more=found, origin=origin)


def _named(item: Any, origin: str) -> dict[str, Any]:
    if isinstance(item, Mapping):
        if "x" not in item:
            raise ValueError(f"{origin} must hold items with an x, got {sorted(map(str, item))}: name the data x")
        return dict(item)
    if isinstance(item, tuple | list):
        if not 1 <= len(item) <= 2:
            raise ValueError(
                f"{origin} must hold items x or (x, y), got {len(item)} things in one: make them a dict by name"
            )
        return dict(zip(("x", "y"), item, strict=False))
    return {"x": item}


def _tensor(value: Any, origin: str) -> Tensor:
    try:
        return value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    except TypeError as error:
        kind = type(value).__name__
        raise TypeError(
            f"{origin} must hold tensors or arrays, got {kind} ({error}): transform it to a tensor"
        ) from error
