"""Recording a function of tensors as one flat graph, backward pass included; and how far two outcomes lie apart."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any, NamedTuple

import pyro.util
import torch
from torch import Tensor, fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
FRAMES_OF_A_WARNING = 8
Outcome = tuple[list[float], list[Tensor | None]]  # while it is recorded, the numbers are 0-d tensors
ROUNDING = 1e-5
SMALL_SHARE = 1e-3


class Refused(RuntimeError):
    """A function cannot be captured; the message says why, in one line.

    Attributes:
        for_now: whether a later call may fare better.
    """

    def __init__(self, reason: str, for_now: bool = False):
        super().__init__(reason)
        self.for_now = for_now


class Recording(NamedTuple):
    """A graph from the inputs it was recorded with to (numbers, reads, tensors), and what was read, as Python saw it.

    ``missing`` has True where the function gave None in place of a tensor.
    """

    graph: fx.GraphModule
    values: list[bool | int | float]
    missing: list[bool]


class _Outward(TorchFunctionMode):
    """Keeps in the graph what leaves it as a number, and refuses what would leave it unseen."""

    unseen = (Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__dlpack__, Tensor.data_ptr)
    makers = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.item:
            # In double precision, as Python adds numbers up.
            value = args[0].detach()
            return value.double() if value.is_floating_point() else value
        if func in self.unseen:
            raise Refused(f"the program reads a tensor by {func.__name__}, which cannot be recorded")
        if func is torch.tensor and isinstance(args[0], Tensor):
            return args[0].detach().clone().to(dtype=kwargs.get("dtype"), device=kwargs.get("device"))
        if func in self.makers and any(isinstance(leaf, Tensor) for a in args for leaf in _inside(a)):
            raise Refused("the program makes a tensor of the numbers in others; use torch.stack, which can be recorded")
        return func(*args, **kwargs)


def _inside(value: object) -> list:
    return tree_leaves(value) if isinstance(value, (list, tuple)) else []


class _Reads(TorchDispatchMode):
    """Lets Python see actual values, and remembers which: the recording holds as long as they stay the same.

    It works below autograd, so it sees what hooks read during the backward pass, too.
    """

    def __init__(self, unrecorded: Callable[[], AbstractContextManager]):
        super().__init__()
        self.unrecorded = unrecorded
        self.tensors: list[Tensor] = []
        self.values: list[bool | int | float] = []

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Collection[type],
        args: tuple = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is aten.equal.default:
            if args[0].shape != args[1].shape:
                return False
            return self._read((args[0] == args[1]).all())
        if func is aten._local_scalar_dense.default:
            return self._read(args[0])
        if func is aten._pack_padded_sequence.default or _size_depends_on_values(func, args):
            raise Refused(f"the shape of what {func} gives depends on the numbers in a tensor")
        return func(*args, **(kwargs or {}))

    def _read(self, tensor: Tensor) -> bool | int | float:
        with self.unrecorded():
            value = aten._local_scalar_dense.default(tensor)
        if not _only_warns():
            self.tensors.append(tensor)
            self.values.append(value)
        return value


def _size_depends_on_values(func: torch._ops.OpOverload, args: tuple) -> bool:
    if func is aten.index.Tensor:
        return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    return torch.Tag.dynamic_output_shape in func.tags


def _only_warns() -> bool:
    """Whether Pyro looks for NaN or infinity, only to warn; that loss and gradient are finite is checked anyway."""
    frame: FrameType | None = sys._getframe(2)
    for _ in range(FRAMES_OF_A_WARNING):
        if frame is None:
            return False
        if frame.f_code.co_filename == pyro.util.__file__ and frame.f_code.co_name.startswith("warn_if_"):
            return True
        frame = frame.f_back
    return False


def record(function: Callable[[], Outcome], inputs: list[Tensor]) -> Recording:
    """Runs a function once and records every operation on the inputs, which are found by their identity.

    Returns:
        a ``Recording``.

    Args:
        function: returns (numbers, tensors): 0-d tensors or floats, and tensors or None.
        inputs: distinct tensors; others that the function reads enter the graph as attributes.

    Raises:
        Refused: the function does what a graph cannot.
    """
    # here, since they bring sympy and half of the compiler along
    from torch._guards import TracingContext, tracing
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx._lazy_graph_module import _use_lazy_graph_module
    from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx

    reads = _Reads(disable_proxy_modes_tracing)
    missing: list[bool] = []

    def recorded(*_: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        with reads, _Outward():
            numbers, tensors = function()
        missing.extend(tensor is None for tensor in tensors)
        summary = [torch.as_tensor(number).detach() for number in numbers]
        return summary, [t.detach() for t in reads.tensors], [t for t in tensors if t is not None]

    # One mode for all nodes' shapes, or each makes its own, stack trace and all; no code for a graph soon rewritten.
    with tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))), _use_lazy_graph_module(True):
        graph = make_fx(recorded)(*inputs)
    return Recording(graph, reads.values, missing)


def difference(expected: Outcome, found: Outcome, jointly: bool = False) -> float:
    """The largest relative distance between numbers, or between tensors; 0 if all tensors agree bit for bit.

    It is infinite where one has a tensor and the other has none. Tensors much smaller than the largest are held against
    a thousandth of that. Numbers that agree to rounding are the same. ``jointly``, all tensors are one vector: where
    rounding differs, a unit near its kink may change sides, which moves single small gradients far.
    """
    gaps = [abs(a - b) / max(abs(a), abs(b), 1e-30) for a, b in zip(expected[0], found[0], strict=True)]
    worst = max((gap for gap in gaps if gap > ROUNDING), default=0.0)
    if [a is None for a in expected[1]] != [b is None for b in found[1]]:
        return math.inf
    both = [(a, b) for a, b in zip(expected[1], found[1], strict=True) if a is not None and b is not None]
    pairs = [(a, b) for a, b in both if not torch.equal(a, b) and not equal_with_nan(a, b)]
    if not pairs:
        return worst
    norms = [_norm(a) for a, _ in both]
    if jointly:
        distance = math.hypot(*(_norm(a.double() - b.double()) for a, b in pairs)) / max(math.hypot(*norms), 1e-30)
        return math.inf if math.isnan(distance) else max(worst, distance)
    largest = max(norms)
    apart = [_norm(a.double() - b.double()) / max(_norm(a), SMALL_SHARE * largest, 1e-30) for a, b in pairs]
    return max(worst, *(math.inf if math.isnan(gap) else gap for gap in apart))


def _norm(value: Tensor) -> float:
    return torch.linalg.vector_norm(value.double()).item()


def equal_with_nan(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
