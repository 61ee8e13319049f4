"""Arrays as people hold them: torch tensors, NumPy arrays or tables; what comes in tells what goes out."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from torch import Tensor

from dlvm.inference.programs.batches import arguments, check_dense
from dlvm.inference.programs.errors import FAILURES
from dlvm.inference.programs.modules import signature_of
from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.randomness import untouched
from dlvm.inference.programs.rows import by_length, rows_of

TRIED = slice(0, 3)


class Kind(NamedTuple):
    """What kind of array a result is handed back as.

    Attributes:
        like: the array that came in: a tensor, a NumPy array, or a table (a pandas DataFrame, or what has its
            ``to_numpy``, ``index`` and ``columns``).
    """

    like: Any

    @property
    def is_table(self) -> bool:
        return _is_table(self.like)

    def back(self, value: Tensor, columns: Sequence[str] | None = None, by_row: bool = True) -> Any:
        """The same numbers as this kind of array.

        Of a table, a matrix with a row for each of its own becomes a table with its ids, any other an array.

        Args:
            value: what was computed.
            columns: names for the columns of a table, where they are not those that came in.
            by_row: whether the first dimension is that of data; of draws it is not, however many there are.
        """
        if isinstance(self.like, Tensor):
            return value.to(self.like.device)
        numbers = value.detach().cpu().numpy()
        if not (self.is_table and by_row and numbers.ndim in (1, 2) and len(numbers) == len(self.like.index)):
            return numbers
        names = list(self.like.columns) if columns is None else list(columns)
        return type(self.like)(numbers.reshape(len(numbers), -1), index=self.like.index, columns=names)


class Given(NamedTuple):
    """A call's arguments as tensors, and the kind of array that the first of them was."""

    args: tuple
    kind: Kind


def taken_in(pair: Pair, x: Any, name: str = "x") -> Given:
    """What the programs are called with.

    Numbers with a point are brought to the precision of the programs' parameters, whole ones stay as they are, unless
    the programs cannot run on whole numbers and can on the same with a point.

    Args:
        pair: which is to be called.
        x: an array of one row per datum, or a tuple of the model's arguments.
        name: for it, in errors.

    Raises:
        TypeError: one is no array of real numbers, or there is none.
        ValueError: the programs take other arguments, or an array holds no row.
    """
    values = tuple(x) if isinstance(x, tuple) else (x,)
    if not any(_is_array(value) for value in values):
        got = type(values[0] if values else x).__name__
        raise TypeError(
            f"{name} must be a tensor, a NumPy array or a DataFrame with one row per datum, or a tuple of the "
            f"model's arguments with one among them, got {got}; pass torch.as_tensor(x), or loader.x of "
            "data that are loaded"
        )
    check_call(pair, values, name)
    first = next(value for value in values if _is_array(value))
    args = arguments(tuple(as_tensor(value, dtype_of(pair), name) if _is_array(value) else value for value in values))
    return Given(_runnable(pair, args), Kind(first))


def check_call(pair: Pair, args: tuple, name: str = "x") -> None:
    """Raises ValueError where a program does not take so many arguments."""
    for word, program in zip(("model", "guide"), pair.programs, strict=True):
        signature = signature_of(program)
        try:
            signature.bind(*args)
        except TypeError as error:
            raise ValueError(
                f"{name} must hold the arguments of the {word}, {_named(signature)}, got {len(args)} ({error}); pass a "
                "tuple of arrays in this order, as (x, y)"
            ) from error


def _named(signature: inspect.Signature) -> str:
    """The names of its arguments, but for n, which asks for data where there are none."""
    return ", ".join(name for name in signature.parameters if name != "n") or "none"


def dtype_of(pair: Pair) -> torch.dtype:
    """The precision of the programs' parameters and buffers; torch's default where they have none."""
    numbers = (t for module in pair.modules for t in (*module.parameters(), *module.buffers()))
    return next((t.dtype for t in numbers if t.is_floating_point()), torch.get_default_dtype())


def as_tensor(value: Any, dtype: torch.dtype, name: str = "x") -> Tensor:
    """An array as a tensor, in this precision where its numbers have a point.

    Raises:
        TypeError: it does not hold real numbers.
    """
    if _is_table(value):
        value = _numbers_of(value, name)
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            raise TypeError(f"{name} must hold real numbers, got an array of dtype {value.dtype}; convert it first")
        value = torch.tensor(np.ascontiguousarray(value, value.dtype.newbyteorder("=")))
    if not isinstance(value, Tensor):
        got = type(value).__name__
        raise TypeError(f"{name} must be a tensor, a NumPy array or a DataFrame, got {got}; pass torch.as_tensor(x)")
    check_dense(value)
    value = value.detach()
    return value.to(dtype) if value.is_floating_point() else value


def _numbers_of(table: Any, name: str) -> np.ndarray:
    text = [str(column) for column, kind in zip(table.columns, table.dtypes, strict=True) if kind.kind not in "biuf"]
    if text:
        raise TypeError(
            f"{name} must hold numbers alone, got text or dates in {', '.join(text[:5])}; make ids the index "
            f"(set_index), and leave other columns out: {name}.drop(columns={text[:5]})"
        )
    numbers = table.to_numpy()
    return table.to_numpy(dtype=np.float64, na_value=np.nan) if numbers.dtype.kind == "O" else numbers


def _runnable(pair: Pair, args: tuple) -> tuple:
    """The arguments with whole numbers as floats, where the programs run on these alone."""
    whole = [isinstance(a, Tensor) and not a.is_floating_point() for a in args]
    if not any(whole) or _runs(pair, args):
        return args
    dtype = dtype_of(pair)
    floats = tuple(a.to(dtype) if is_whole else a for a, is_whole in zip(args, whole, strict=True))
    return floats if _runs(pair, floats) else args


def _runs(pair: Pair, args: tuple) -> bool:
    some = rows_of(args, TRIED, by_length(args, pair))
    with untouched(0), torch.no_grad(), pair.evaluating(), pyro.validation_enabled(False):
        try:
            for trace in pair.traces(some, {}):
                trace.compute_log_prob()
        except FAILURES:  # in another type they may run; if not, the call itself says why
            return False
    return True


def _is_array(value: object) -> bool:
    return isinstance(value, Tensor | np.ndarray) or _is_table(value)


def _is_table(value: object) -> bool:
    return not isinstance(value, type) and all(hasattr(value, name) for name in ("to_numpy", "index", "columns"))
