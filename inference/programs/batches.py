"""Batches as the arguments of programs: what may be one, where it is moved, and data as a run of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from dlvm.inference.programs.modules import reached
from dlvm.inference.programs.notes import noting
from dlvm.inference.programs.pair import Pair


def arguments(batch: object) -> tuple:
    """The arguments that a batch stands for: a tuple or list of them, or a single tensor.

    Raises:
        TypeError: it is something else, holds no tensor, or one is sparse, complex or without numbers.
        ValueError: a tensor requires a gradient.
    """
    args = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
    if not any(isinstance(a, Tensor) for a in args):
        got = args[0] if args else batch
        raise TypeError(
            "a batch must be a tensor, or a tuple of the model's arguments with one among them, got "
            f"{type(got).__name__}; {_remedy(got)}"
        )
    if not len(x := data_in(args)):
        raise ValueError(f"a batch of shape {tuple(x.shape)} holds no datum; leave it out")
    if any(isinstance(a, Tensor) and a.requires_grad for a in args):
        raise ValueError("a batch requires a gradient, as what a model has drawn does; pass x.detach()")
    check_dense(*args)
    return args


def _remedy(batch: object) -> str:
    """What to pass instead of an object that has tensors inside, which nobody here takes rows of."""
    held = batch if isinstance(batch, dict) else getattr(batch, "__dict__", {})
    names = [name for name, value in held.items() if isinstance(value, Tensor) and str(name).isidentifier()]
    if not names:
        return "pass (x,)"
    given = ", ".join(names)
    made = "{" + ", ".join(f"{name!r}: {name}" for name in names) + "}" if isinstance(batch, dict) else f"...({given})"
    return (
        f"pass its tensors as arguments of their own, ({given},), to lambda {given}: model({made}) and to the same of "
        "the guide; SVI, check and log_weights take it whole"
    )


def data_in(args: tuple) -> Tensor:
    """The first tensor with dimensions among a batch's arguments, whose rows are its data.

    Raises:
        ValueError: there is none.
    """
    for value in args:
        if isinstance(value, Tensor) and value.dim():
            return value
    raise ValueError("a batch must have one row per datum, got a 0-d tensor; pass x of shape (batch, x_dim)")


def rows_in(args: tuple) -> int:
    """How many rows the first such tensor has."""
    return len(data_in(args))


def look(args: tuple) -> tuple:
    """What tells calls apart in which programs may have other sites: shapes, plain values, other objects by identity.

    These objects have to be kept for as long as what is found here.
    """
    plain = bool | int | float | str | None
    return tuple(tuple(a.shape) if isinstance(a, Tensor) else a if isinstance(a, plain) else id(a) for a in args)


def is_dense(x: object) -> bool:
    """Whether it is a tensor that holds real numbers, one after the other."""
    return isinstance(x, Tensor) and x.layout is torch.strided and not x.is_meta and not x.is_complex()


def check_dense(*args: object, **kwargs: object) -> None:
    """Raises TypeError where an argument of programs is a tensor without real numbers, one after the other."""
    for name, x in [*(("a batch", x) for x in args), *kwargs.items()]:
        if isinstance(x, Tensor) and not is_dense(x):
            kind = "on the meta device" if x.is_meta else f"of {x.dtype if x.is_complex() else x.layout}"
            raise TypeError(f"{name} must hold real numbers in dense tensors, got one {kind}; pass x.to_dense()")


def batches_of(data: Tensor | Iterable) -> Iterable:
    """Data as an iterable of batches: a tensor is a single one.

    Raises:
        TypeError: they are no tensor, and cannot be iterated.
    """
    if isinstance(data, Tensor):
        return [data]
    if not isinstance(data, Iterable) or isinstance(data, str):
        raise TypeError(
            f"data must be a tensor or an iterable of batches, got {type(data).__name__}; pass x or a loader"
        )
    return data


def length_of(data: object) -> int | None:
    """How many batches there are, where this is known: a loader over a stream has a ``len`` that raises."""
    try:
        return len(data) if isinstance(data, Sized) else None
    except (TypeError, NotImplementedError):
        return None


def tensors_of(data: object) -> list[Tensor]:
    """The tensors that data consist of, as far as they are at hand."""
    if isinstance(x := getattr(data, "x", None), Tensor):
        return [x]
    if isinstance(held := getattr(getattr(data, "dataset", None), "tensors", None), tuple):
        return [x for x in held if isinstance(x, Tensor)]
    rows = data if isinstance(data, list | tuple) else ()
    parts = [part for row in rows for part in (row if isinstance(row, list | tuple) else (row,))]
    return [part for part in parts if isinstance(part, Tensor)]


def to_device(device: str | torch.device | None, *programs: Callable) -> Callable[[tuple], tuple]:
    """Moves the programs that are modules; returns what moves a batch's arguments."""
    if device is None:
        return lambda args: args
    try:
        if torch.empty(0, device=device).is_meta:
            raise TypeError("it holds no numbers")
    except (RuntimeError, AssertionError, TypeError) as error:
        said = str(error).split("\n")[0]
        raise ValueError(f"device must be one that torch can use here, got {device!r} ({said}); pass 'cpu'") from error
    for module in reached(*programs):
        module.to(device)
    return lambda args: tuple(a.to(device, non_blocking=True) if isinstance(a, Tensor) else a for a in args)


def to_device_of(pair: Pair) -> Callable[[tuple], tuple]:
    """Returns what moves a batch's arguments to where the programs' parameters are."""
    return to_device(pair.device)


class Counting(Protocol):
    """What a batch stands for, see ``DataCount``."""

    def __call__(self, args: tuple) -> float: ...

    def share(self, args: tuple) -> float: ...


class Batches:
    """Data as pairs of a batch's arguments, moved, and by how many data its loss is to be divided.

    Args:
        data: iterated anew each time; one with ``seeded(seed)`` is reseeded.
        move: what moves a batch's arguments to the model's device.
        count: by how many data the loss on a batch is to be divided, and what share of them it is, see ``DataCount``.
        seed: of shuffling and binarisation; None leaves ``data`` as they are.
    """

    def __init__(self, data: Iterable, move: Callable[[tuple], tuple], count: Counting, seed: int | None):
        self.data = data.seeded(int(seed)) if seed is not None and hasattr(data, "seeded") else data
        self.move, self.count = move, count
        self._resumed: tuple[int, Callable[[], None]] | None = None
        self._check: Callable[[tuple], None] | None = None

    def check_by(self, check: Callable[[tuple], None]) -> None:
        """Holds every batch against ``check``: at once where data are in memory, or as they come for the first time."""
        if isinstance(self.data, list | tuple) or tensors_of(self.data):
            for args, _ in self:
                check(args)
        else:
            self._check = check

    def resume_at(self, position: int, then: Callable[[], None]) -> None:
        """Lets the next pass begin after so many batches, which are drawn and left, and a call of ``then``."""
        self._resumed = position, then

    def __iter__(self) -> Iterator[tuple[tuple, float]]:
        batches, first = iter(self.data), 1
        if self._resumed is not None:
            (position, then), self._resumed = self._resumed, None
            first += position
            for _ in range(position):
                next(batches)
            if position:  # at the beginning, the streams stand right, and iter may have drawn from them
                then()
        for number, batch in enumerate(batches, start=first):
            with noting(partial("in batch {}".format, number)):
                args = self.move(arguments(batch))
                if self._check is not None:
                    self._check(args)
                count = self.count(args)
            yield args, count
        self._check = None
