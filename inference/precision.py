"""Training in half the bits: linear and convolutional layers in bfloat16, all else in single precision."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

PRECISIONS = ("fp32", "bf16")
_LAYERS = (
    F.linear,
    F.conv1d,
    F.conv2d,
    F.conv3d,
    F.conv_transpose1d,
    F.conv_transpose2d,
    F.conv_transpose3d,
)


class _BFloat16Layers(TorchFunctionMode):
    """Products are made in bfloat16 and summed in single precision; biases and log-densities never see bfloat16."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        return _layer(func, *args, **kwargs) if func in _LAYERS else func(*args, **kwargs)


def _layer(func: Callable, input: Tensor, weight: Tensor, bias: Tensor | None = None, *rest, **kwargs) -> Tensor:
    if input.dtype != torch.float32:
        return func(input, weight, bias, *rest, **kwargs)
    product = func(input.bfloat16(), weight.bfloat16(), None, *rest, **kwargs).float()
    if bias is None:
        return product
    return product + bias.reshape(-1, *[1] * (0 if func is F.linear else weight.dim() - 2))


def precise(precision: str) -> AbstractContextManager:
    """A context in which layers compute in this precision.

    Raises:
        ValueError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    return _BFloat16Layers() if precision == "bf16" else nullcontext()
