"""What tells calls apart whose graphs may differ: all of their arguments but the numbers inside tensors."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor
from torch.utils._pytree import tree_flatten

from dlvm.inference.engine.module_state import SCALARS


def keyed(args: tuple, kwargs: dict) -> tuple[list[Tensor], Hashable | None]:
    """The tensors among arguments, and a key of all else: shapes, strides, types, plain values, global settings.

    Other objects count by identity, with the plain values that they hold. The key is None where calls cannot be told
    apart by it: objects that hold more than that, tensors that want a gradient; see ``stranger``.
    """
    world = torch.get_default_dtype(), is_validation_enabled(), torch.is_grad_enabled(), *_autocast()
    flat: Sequence[Any] = args
    structure = None
    if kwargs or not all([type(a) is Tensor or isinstance(a, SCALARS) for a in args]):
        flat, tree = tree_flatten((args, kwargs))
        structure = str(tree)
    entries: list[tuple] = []
    tensors: list[Tensor] = []
    for value in flat:
        if isinstance(value, Tensor):
            if not _plain(value):
                return [], None
            tensors.append(value)
            entries.append((value.shape, value.stride(), value.dtype, value.device))
        elif isinstance(value, SCALARS):
            entries.append((type(value), value))
        elif (held := _held(value)) is not None:
            entries.append((_Same(value), *held))
        else:
            return [], None
    return tensors, (world, structure, *entries)


def stranger(args: tuple, kwargs: dict) -> str:
    """Which argument has no key, and what may be one, in words."""
    for name, value in [*enumerate(args), *kwargs.items()]:
        for leaf in tree_flatten(value)[0]:
            if isinstance(leaf, Tensor) and not _plain(leaf):
                return f"argument {name!r} wants a gradient or is sparse; pass detached, dense tensors"
            if not isinstance(leaf, (Tensor, *SCALARS)) and _held(leaf) is None:
                return (
                    f"argument {name!r} holds a {type(leaf).__name__}; pass tensors, numbers, words, None, or objects "
                    "with no more than numbers and words as attributes"
                )
    return "arguments must be tensors that want no gradient, numbers, words or None"


class _Same:
    """An object as a key: equal to itself alone, and alive as long as the key."""

    def __init__(self, value: object):
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value


def _plain(value: Tensor) -> bool:
    return not value.requires_grad and value.layout == torch.strided


def _held(value: object) -> tuple | None:
    """The plain values that an object holds, as pairs with their names; None where it holds anything else."""
    held = getattr(value, "__dict__", None)
    if not isinstance(held, dict) or callable(value) or not all(isinstance(v, SCALARS) for v in held.values()):
        return None
    return tuple(held.items())


def _autocast() -> tuple[torch.dtype, ...]:
    return tuple(torch.get_autocast_dtype(kind) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind))
