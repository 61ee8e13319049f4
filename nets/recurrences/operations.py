"""Operations of our own, which a recording holds as one, whatever they do inside."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_library = torch.library.Library("dlvm", "DEF")


def operation(
    name: str, given: str, run: Callable[..., list[Tensor]], shapes: Callable[..., list[Tensor]]
) -> Callable[..., list[Tensor]]:
    """Makes ``torch.ops.dlvm.<name>`` of a function that returns new tensors, without a gradient of its own.

    Args:
        name: of the operation.
        given: its arguments, as torch's schemas write them.
        run: what it does.
        shapes: of the same arguments, without values -> tensors of the shapes that ``run`` returns.

    Returns:
        the operation.
    """
    _library.define(f"{name}({given}) -> Tensor[]")
    _library.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"dlvm::{name}", shapes, lib=_library)
    return getattr(torch.ops.dlvm, name)
