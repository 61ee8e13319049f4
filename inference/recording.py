"""Recording a function of tensors as one flat graph of ATen operations, backward pass included."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

Outcome = tuple[list, list]


class Recording(NamedTuple):
    """A graph from the inputs it was recorded with to (numbers, reads, tensors), and what was read, as Python saw it.

    ``missing`` has True where the function gave None in place of a tensor.
    """

    graph: fx.GraphModule
    values: list[bool | int | float]
    missing: list[bool]


class _Items(TorchFunctionMode):
    """``Tensor.item`` gives a detached tensor, so that a loss stays in the graph on its way out."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is Tensor.item:
            return args[0].detach()
        return func(*args, **(kwargs or {}))


class _Reads(TorchDispatchMode):
    """Lets Python see actual values, and remembers which: the recording holds as long as they stay the same.

    It works below autograd, so it sees what hooks read during the backward pass, too.
    """

    def __init__(self):
        super().__init__()
        self.tensors: list[Tensor] = []
        self.values: list[bool | int | float] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is not torch.ops.aten._local_scalar_dense.default:
            return func(*args, **(kwargs or {}))
        with disable_proxy_modes_tracing():
            value = func(*args)
        self.tensors.append(args[0])
        self.values.append(value)
        return value


def record(function: Callable[[], Outcome], inputs: list[Tensor]) -> Recording:
    """Runs a function once and records every operation on the inputs, which are found by their identity.

    Returns:
        a ``Recording``.

    Args:
        function: returns (numbers, tensors): 0-d tensors or floats, and tensors or None.
        inputs: distinct tensors; others that the function reads enter the graph as attributes.
    """
    reads, missing = _Reads(), []

    def recorded(*_: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        with reads, _Items():
            numbers, tensors = function()
        missing.extend(tensor is None for tensor in tensors)
        numbers = [torch.as_tensor(number).detach() for number in numbers]
        return numbers, [t.detach() for t in reads.tensors], [t for t in tensors if t is not None]

    return Recording(make_fx(recorded)(*inputs), reads.values, missing)
