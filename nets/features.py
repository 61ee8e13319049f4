"""How wide a net's output is."""

from __future__ import annotations

from torch import nn

from nets.numbers import is_count


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
