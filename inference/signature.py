"""What a captured graph depends on among a call's arguments: everything but the numbers inside tensors."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

_PLAIN = (bool, int, float, str, type(None))


def split(args: tuple, kwargs: dict) -> tuple[list[Tensor], Hashable | None]:
    """The tensors among arguments, and a key of all else: shapes, strides, types, plain values, global settings.

    The key is None where calls cannot be told apart by it: arguments of other kinds, tensors that want a gradient.
    """
    world = torch.get_default_dtype(), is_validation_enabled(), torch.is_grad_enabled(), *_autocast()
    if not kwargs and all([type(a) is Tensor or isinstance(a, _PLAIN) for a in args]):
        flat, structure = args, None
    else:
        flat, structure = tree_flatten((args, kwargs))
        structure = str(structure)
    entries, tensors = [], []
    for value in flat:
        if isinstance(value, Tensor):
            if value.requires_grad or value.layout != torch.strided:
                return [], None
            tensors.append(value)
            entries.append((value.shape, value.stride(), value.dtype, value.device))
        elif isinstance(value, _PLAIN):
            entries.append((type(value), value))
        else:
            return [], None
    return tensors, (world, structure, *entries)


def _autocast() -> tuple:
    return tuple(torch.get_autocast_dtype(kind) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind))


def aliased(args: tuple, kwargs: dict) -> tuple[tuple, dict, list[Tensor]]:
    """The same arguments with every tensor a copy of its own, and these copies in order."""
    flat, structure = tree_flatten((args, kwargs))
    flat = [_copy(value) if isinstance(value, Tensor) else value for value in flat]
    args, kwargs = tree_unflatten(flat, structure)
    return args, kwargs, [value for value in flat if isinstance(value, Tensor)]


def _copy(value: Tensor) -> Tensor:
    """A copy with the same strides; of an expanded tensor an alias."""
    if 0 in value.stride():
        return value.detach()
    copy = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)
    return copy.copy_(value)
