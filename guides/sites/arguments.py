"""What the programs, functions, encoders and families given to a guide must be, before anything is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from pyro.nn import PyroModule
from torch import nn

from dlvm.nets import out_features
from dlvm.nets.arguments import widths


def program(**programs: object) -> None:
    """Refuses, by its name, what is no Pyro program.

    Raises:
        TypeError: one cannot be called, or is a class.

    Example:
        >>> program(model=nn.Linear)
        Traceback (most recent call last):
        TypeError: model must be the Pyro program itself, got the class Linear; call it, as Linear(...), to make one
    """
    for name, value in programs.items():
        if isinstance(value, type):
            kind = value.__name__
            raise TypeError(
                f"{name} must be the Pyro program itself, got the class {kind}; call it, as {kind}(...), to make one"
            )
        if not callable(value):
            raise TypeError(
                f"{name} must be the Pyro program itself, got {type(value).__name__}; pass a module or a function"
            )


def function(**functions: object) -> None:
    """Refuses, by its name, what is neither a function nor None.

    Raises:
        TypeError: one cannot be called, or is a class.
    """
    for name, value in functions.items():
        if value is not None and (isinstance(value, type) or not callable(value)):
            raise TypeError(
                f"{name} must be a function of the guide's arguments or None, got {value!r}; pass a def or a lambda"
            )


def family_of(**families: object) -> None:
    """Refuses, by its name, what makes no conditional distribution from (net, dim).

    Raises:
        TypeError: one cannot be called, is made already, or is a class of something else: a distribution, a guide.
    """
    for name, value in families.items():
        wrong = isinstance(value, type) and (not issubclass(value, nn.Module) or issubclass(value, PyroModule))
        if wrong or isinstance(value, nn.Module) or not callable(value):
            raise TypeError(
                f"{name} must make a module from (net, dim), got {value!r}; pass a class, as DiagonalNormal, or "
                "partial(LowRankNormal, rank=3)"
            )


def encoder_width(encoder: nn.Module) -> int:
    """The encoder's ``out_features``.

    Raises:
        TypeError: it has none, cannot be called, or is a class.
    """
    try:
        width = out_features(encoder)
    except TypeError as error:
        raise TypeError(f"encoder is no module from data to features: {error}") from None
    if not callable(encoder):
        raise TypeError(f"encoder must be a module from data to features, got {type(encoder).__name__}; pass an MLP")
    return width


def layers(width: int | Sequence[int]) -> tuple[int, ...]:
    """Widths of the hidden layers of a step, from one width or several.

    Raises:
        TypeError, ValueError: ``width`` is neither an integer nor a sequence of them, all at least 1.
    """
    found: Any = (width,) if isinstance(width, Integral) else width
    widths(width=found)
    return tuple(found)
