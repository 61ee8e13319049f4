"""What a module, or what makes one, given as an argument must be; and what tokens are."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import TypeGuard

import torch
from torch import Tensor, nn


def module(**modules: object) -> None:
    """Refuses, by its name, what is no module.

    Raises:
        TypeError: one is of another type: a function, a class that was not called, None.

    Example:
        >>> module(net=nn.ReLU)
        Traceback (most recent call last):
        TypeError: net must be a module, got the class ReLU; call it, as ReLU(...), to make one
    """
    for name, value in modules.items():
        if isinstance(value, type):
            kind = value.__name__
            raise TypeError(f"{name} must be a module, got the class {kind}; call it, as {kind}(...), to make one")
        if not isinstance(value, nn.Module):
            raise TypeError(
                f"{name} must be a module, got {type(value).__name__}; wrap a function in an nn.Module, which owns the "
                "parameters it needs"
            )


def made(name: str, make: object, *arguments: object) -> nn.Module:
    """The module that ``make(*arguments)`` returns, ``make`` being the argument of this name.

    Raises:
        TypeError: it is a module already, cannot be called so, or makes something else.

    Example:
        >>> made("activation", nn.ReLU())
        Traceback (most recent call last):
        TypeError: activation must make a module, got the module ReLU; pass what makes it, as nn.ReLU or a lambda
    """
    if isinstance(make, nn.Module) or not callable(make):
        got = f"the module {type(make).__name__}" if isinstance(make, nn.Module) else repr(make)
        raise TypeError(f"{name} must make a module, got {got}; pass what makes it, as nn.ReLU or a lambda")
    called = f"called with {len(arguments)} arguments" if arguments else "called without arguments"
    try:
        value = make(*arguments)
    except TypeError as error:
        raise TypeError(f"{name} must make a module when {called}, got {make!r}: {error}; pass a lambda") from error
    if not isinstance(value, nn.Module):
        raise TypeError(f"{name} must make a module when {called}, got {type(value).__name__}; return an nn.Module")
    return value


def whole(**numbers: object) -> None:
    """Refuses, by its name, what is no integer.

    Raises:
        TypeError: one is of another type, ``bool`` included.

    Example:
        >>> whole(depth=2.5)
        Traceback (most recent call last):
        TypeError: depth must be an integer, got 2.5; pass a whole number such as 2
    """
    for name, value in numbers.items():
        if not _is_whole(value):
            raise TypeError(f"{name} must be an integer, got {_shown(value)}; pass a whole number such as 2")


def count(**numbers: object) -> None:
    """Refuses, by its name, what is no integer of at least 1.

    Raises:
        TypeError: one is no integer.
        ValueError: one is below 1.
    """
    whole(**numbers)
    for name, value in numbers.items():
        if not is_count(value):
            raise ValueError(f"{name} must be at least 1, got {value}; pass how many there are to be")


def is_count(value: object, least: int = 1) -> TypeGuard[int]:
    """Whether it is an integer of at least so much, and no bool."""
    return _is_whole(value) and value >= least


def widths(**sequences: object) -> None:
    """Refuses, by its name, what is no sequence of integers of at least 1; it may be empty.

    Raises:
        TypeError: one is no sequence, or an element of it no integer.
        ValueError: an element is below 1.
    """
    for name, values in sequences.items():
        if not isinstance(values, Sequence) or isinstance(values, (str, bytes)):
            raise TypeError(f"{name} must be a sequence of widths, got {_shown(values)}; write (64,) for one layer")
        count(**{f"{name}[{i}]": width for i, width in enumerate(values)})


def real(**numbers: object) -> None:
    """Refuses, by its name, what is no Python number.

    Raises:
        TypeError: one is of another type.
    """
    for name, value in numbers.items():
        if not isinstance(value, Real):
            raise TypeError(f"{name} must be a number, got {_shown(value)}; pass a float")


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _shown(value: object) -> str:
    """At most a line of it."""
    text = " ".join(repr(value).split())
    return text if len(text) < 60 else f"{text[:56]} ..."


def out_features(net: nn.Module) -> int:
    """The net's ``out_features``.

    Raises:
        TypeError: it has none that is a positive integer.

    Example:
        >>> out_features(nn.Linear(3, 8))
        8
    """
    width = None if isinstance(net, type) else getattr(net, "out_features", None)
    if not is_count(width):
        got = f"{net.__name__}, a class that was not called," if isinstance(net, type) else type(net).__name__
        raise TypeError(
            f"net {got} needs out_features, a positive integer: the width of what it returns; "
            "set it as an attribute of the module"
        )
    return width


def check_tokens(value: Tensor, most: int) -> None:
    """Refuses what are no whole numbers from 0 to ``most``.

    Raises:
        TypeError: it is no tensor, or not of whole numbers.
        ValueError: a number is out of range, or there is no position.
    """
    if not isinstance(value, Tensor) or value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"value must be a tensor of whole numbers, one for each token, got {got}; see Tensor.long()")
    if not value.dim() or not value.shape[-1]:
        raise ValueError(f"value must have shape (*batch, positions), at least one, got {tuple(value.shape)}")
    if torch.compiler.is_compiling() or not value.numel():
        return
    least, top = value.aminmax()
    if least < 0 or top > most:
        raise ValueError(
            f"value must hold tokens 0 to {most}, got {least.item()} to {top.item()}; number them from 0, or make "
            "the net for more"
        )


def within_lengths(lengths: Tensor, batch: Sequence[int], steps: int) -> Tensor:
    """Which steps there are, shape (*batch, steps).

    Raises:
        TypeError: lengths are no whole numbers.
        ValueError: there is not one for each sequence, or one is no number of steps.
    """
    if not isinstance(lengths, Tensor) or lengths.is_floating_point() or lengths.dtype == torch.bool:
        got = lengths.dtype if isinstance(lengths, Tensor) else type(lengths).__name__
        raise TypeError(f"lengths must be a tensor of whole numbers, got {got}; count the steps of each sequence")
    if list(lengths.shape) != list(batch) or ((lengths < 0) | (lengths > steps)).any():
        came = f"shape {tuple(lengths.shape)}" if list(lengths.shape) != list(batch) else f"up to {lengths.max()}"
        raise ValueError(f"lengths must be of shape {tuple(batch)}, from 0 to the {steps} steps of x, got {came}")
    return torch.arange(steps, device=lengths.device) < lengths.unsqueeze(-1)
