"""What a number given as an argument must be, before anything is computed with it."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real


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
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise TypeError(f"{name} must be an integer, got {_shown(value)}; pass a whole number such as 2")


def count(**numbers: object) -> None:
    """Refuses, by its name, what is no integer of at least 1.

    Raises:
        TypeError: one is no integer.
        ValueError: one is below 1.
    """
    whole(**numbers)
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}; pass how many there are to be")


def is_count(value: object, least: int = 1) -> bool:
    """Whether it is an integer of at least so much, and no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= least


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


def _shown(value: object) -> str:
    """At most a line of it."""
    text = " ".join(repr(value).split())
    return text if len(text) < 60 else f"{text[:56]} ..."
