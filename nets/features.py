"""How wide a net's output is."""

from __future__ import annotations

from torch import nn


def out_features(net: nn.Module) -> int:
    """The net's ``out_features``.

    Raises:
        TypeError: it has none that is a positive integer.

    Example:
        >>> out_features(nn.Linear(3, 8))
        8
    """
    width = getattr(net, "out_features", None)
    if not isinstance(width, int) or width < 1:
        raise TypeError(
            f"net {type(net).__name__} needs out_features, a positive integer: the width of what it returns; "
            "set it as an attribute of the module"
        )
    return width
