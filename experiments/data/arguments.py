"""What the arguments beside the data themselves must be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path

import torch
from torch import Tensor

from dlvm.nets.arguments import whole


def is_whole(value: object) -> bool:
    """Whether it is an integer, of numpy's too, and no truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_count(name: str, value: int, most: int | None = None) -> int:
    """value, if it is an int of at least 1 (and at most `most`); ValueError that names it otherwise."""
    if not is_whole(value) or value < 1 or (most is not None and value > most):
        bounds = "of at least 1" if most is None else f"from 1 to {most}"
        raise ValueError(f"{name} must be an int {bounds}, got {value!r}: pass how many there are to be")
    return int(value)


def check_image_shape(shape: tuple[int, ...] | None, columns: int) -> tuple[int, ...] | None:
    """shape, if it is one that a row of so many columns can take; TypeError or ValueError otherwise."""
    if shape is None:
        return None
    if not isinstance(shape, tuple | list):
        raise TypeError(f"image_shape must be a tuple of sizes, got {shape!r}: write (28, 28)")
    if not all(is_whole(size) and size > 0 for size in shape) or math.prod(shape) != columns:
        raise ValueError(
            f"image_shape must hold the {columns} columns of x, got {tuple(shape)}: write (28, 28) for 784"
        )
    return tuple(int(size) for size in shape)


def check_seed(seed: int) -> int:
    """seed, if it is an int that a generator takes; TypeError or ValueError otherwise."""
    whole(seed=seed)
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed must be an int of 64 bits, got {seed}: take seed % 2**32")
    return int(seed)


def check_device(device: str | torch.device) -> torch.device:
    """device, if torch can use it here; ValueError otherwise."""
    said = "it holds no numbers" if str(device) == "meta" else "no device is named"
    try:
        if device is not None and str(device) != "meta":
            return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        said = str(error).split("\n")[0]
    raise ValueError(f"device must be one that torch can use here, got {device!r} ({said}): pass 'cpu'")


def check_path(name: str, path: str | Path) -> Path:
    """path with ~ replaced; TypeError if it is no path, ValueError if no file can have it."""
    if not isinstance(path, str | Path):
        raise TypeError(f"{name} must be a str or a Path, got {type(path).__name__}: pass the path as a str")
    if not str(path).strip() or "\0" in str(path):
        raise ValueError(f"{name} must be a path, got {str(path)!r}: name a file or a folder")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{name} must be a path, got {str(path)!r} ({error}): write it without ~") from error


def check_labels(labels: object, rows: int) -> Tensor:
    """labels as int64, if they are one whole number per row; ValueError otherwise."""
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels must be a tensor of integers, got {type(labels).__name__}: use torch.as_tensor")
    if labels.shape != (rows,):
        raise ValueError(f"labels must have shape ({rows},), one per row, got {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.is_meta or labels.layout is not torch.strided:
        raise ValueError(f"labels must be whole numbers, got dtype {labels.dtype}: labels.long() if they are")
    return labels.to(torch.int64)


def check_names(name: str, names: object, known: int | tuple[int, int] | None, what: str) -> tuple[str, ...] | None:
    """names as a tuple of different words, if there are as many as is known, or enough for classes from .. to."""
    if names is None:
        return None
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(each, str) for each in names):
        raise TypeError(f"{name} must be a tuple of words, {what}, got {names!r:.60}: write ('a', 'b')")
    if isinstance(known, tuple):
        low, high = known
        if low < 0 or high >= len(names):
            raise ValueError(f"{name} must name the labels {low} to {high}, got {len(names)} names: name each class")
    elif known is not None and len(names) != known:
        raise ValueError(f"{name} must hold {known} names, {what}, got {len(names)}: name each, or leave it out")
    if len(set(names)) != len(names):
        twice = next(each for each in names if list(names).count(each) > 1)
        raise ValueError(f"{name} must hold different names, {what}, got {twice!r} twice: make them unlike")
    return tuple(names)


def check_more(more: object, x: Tensor) -> dict[str, Tensor]:
    """more, if it holds tensors by the names of a model's arguments, with as many rows as x; on the device of x."""
    if not isinstance(more, Mapping):
        raise TypeError(f"more must be a dict of tensors by name, got {type(more).__name__}: write {{'mask': mask}}")
    checked = {}
    for name, value in more.items():
        if not isinstance(name, str) or not name.isidentifier() or name in ("x", "labels"):
            raise ValueError(f"more must name arguments of a model, not x or labels, got {name!r}: write 'lengths'")
        if not isinstance(value, Tensor) or value.ndim == 0 or len(value) != len(x) or value.is_complex():
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"more[{name!r}] must be a tensor of {len(x)} rows of real numbers, as x, got {got}")
        if value.layout is not torch.strided or value.is_meta:
            raise ValueError(f"more[{name!r}] must be dense and in memory, got a {value.layout} one: use to_dense()")
        value = value.detach().to(x.device)
        if value.is_floating_point():
            value = value.to(torch.get_default_dtype())
            if not value.isfinite().all():
                raise ValueError(f"more[{name!r}] must be finite, got NaN or inf: give a mask beside it")
        elif value.dtype is not torch.bool:
            value = value.to(torch.int64)
        checked[name] = value
    return checked
