"""What a module, or what makes one, given as an argument must be."""

from __future__ import annotations

from torch import nn


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
