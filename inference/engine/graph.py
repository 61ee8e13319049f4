"""From a recording to one flat function of tensors that returns everything a step needs in one read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from dlvm.inference.engine.recording import Recording

aten = torch.ops.aten
_COPIES = (aten.detach.default, aten.alias.default)
_VIEWS = (aten.view.default, aten.expand.default, aten._unsafe_view.default, aten.reshape.default)


class Graph(NamedTuple):
    """A flat function of tensors.

        [*numbers, ok], *tensors = module(*inputs, *constants)

    ``inputs`` are positions among the inputs of the recording that the function needs; ``constants`` are tensors from
    elsewhere, alive: a change in place is seen. ``ok`` is 1 as long as every value that Python read while recording
    is what it was.
    """

    module: fx.GraphModule
    inputs: list[int]
    constants: list[Tensor]
    missing: list[bool]
    guards: int

    @property
    def size(self) -> int:
        """Number of operations."""
        return sum(node.op == "call_function" for node in self.module.graph.nodes)


def flatten(recording: Recording) -> Graph:
    """Guards reduced to one number, copies and no-op views removed, every tensor an argument."""
    module = recording.graph
    graph, output = module.graph, next(n for n in module.graph.nodes if n.op == "output")
    graph.set_codegen(fx.graph.CodeGen())
    numbers, reads, tensors = output.args[0]
    for node in graph.find_nodes(op="get_attr"):
        node.meta.setdefault("val", getattr(module, node.target))  # torch 2.7 leaves it out where one is used again
    with graph.inserting_before(output):
        guards, ok = _all_hold(graph, reads, recording.values)
        summary = _vector(graph, [*numbers, ok], _common_type(numbers))
    output.args = ([summary, *tensors],)
    _simplify(graph)
    graph.eliminate_dead_code()
    inputs, constants = _lift(module)
    module.recompile()
    return Graph(module, inputs, constants, recording.missing, guards)


def _all_hold(graph: fx.Graph, reads: list[fx.Node], values: list[bool | int | float]) -> tuple[int, fx.Node | None]:
    """How many values were read, and a 0-d boolean: whether all are the same now; None where there are none."""
    kept = dict.fromkeys(zip(reads, values, strict=True))

    def call(target: Callable[..., Any], *args: Any) -> fx.Node:
        return graph.call_function(target, args)

    def flat(node: fx.Node) -> fx.Node:
        return node if node.meta["val"].dim() == 0 else call(aten.reshape.default, node, [])

    true, false, finite = [], [], []
    for node, value in kept:
        if value is False:
            false.append(flat(node))
        elif value is True and (checked := _checked_for_nan(node)) is not None:
            finite.append(call(aten.sum.default, checked))
        else:
            true.append(flat(node) if value is True else call(aten.eq.Scalar, flat(node), value))
    if finite:
        sums = _vector(graph, finite, torch.float64)
        true.append(call(aten.all.default, call(aten.eq.Tensor, sums, sums)))
    parts = [call(aten.all.default, call(aten.stack.default, true))] if true else []
    parts += [call(aten.logical_not.default, call(aten.any.default, call(aten.stack.default, false)))] if false else []
    ok = call(aten.logical_and.default, *parts) if len(parts) == 2 else parts[0] if parts else None
    return len(kept), ok


def _checked_for_nan(node: fx.Node) -> fx.Node | None:
    """The tensor of which a node says that it holds no NaN, as checks of real supports do; its sum tells it quicker."""
    while node.target in (*_COPIES, aten._is_all_true.default, aten.all.default):
        (node,) = node.all_input_nodes
    if node.target is not aten.eq.Tensor or node.args[0] is not node.args[1]:
        return None
    (checked,) = node.all_input_nodes
    return checked if checked.meta["val"].is_floating_point() else None


def _common_type(numbers: list[fx.Node]) -> torch.dtype:
    dtype = torch.float32
    for number in numbers:
        dtype = torch.promote_types(dtype, number.meta["val"].dtype)
    return dtype


def _vector(graph: fx.Graph, entries: Sequence[fx.Node | None], dtype: torch.dtype) -> fx.Node:
    """Stacks 0-d values in one type; None, an empty guard, is left out."""
    cast = [
        graph.call_function(aten._to_copy.default, (e,), {"dtype": dtype})
        if "val" not in e.meta or e.meta["val"].dtype != dtype
        else e
        for e in entries
        if e is not None
    ]
    if not cast:
        return graph.call_function(aten.zeros.default, ([0],))
    return graph.call_function(aten.stack.default, (cast,))


def _simplify(graph: fx.Graph) -> None:
    for node in list(graph.nodes):
        if node.target is aten._is_all_true.default:
            node.target = aten.all.default  # the same for booleans, and compilers can fuse it
        source = _same_as(node)
        if source is not None:
            node.replace_all_uses_with(source)


def _same_as(node: fx.Node) -> fx.Node | None:
    """An earlier node of the very same storage, shape and strides; None where there is none."""
    source = node.args[0] if node.op == "call_function" and node.args else None
    if not isinstance(source, fx.Node):
        return None
    if node.target in _COPIES:
        return source
    if node.target is aten.t.default and source.target is aten.t.default:
        return source.all_input_nodes[0]
    if node.target in _VIEWS and "val" in node.meta:  # what guards are made of has none
        a, b = node.meta["val"], source.meta["val"]
        if a.shape == b.shape and a.stride() == b.stride() and a.dtype == b.dtype:
            return source
    return None


def _lift(module: fx.GraphModule) -> tuple[list[int], list[Tensor]]:
    """Drops unused arguments and makes every attribute one; returns positions of the kept ones, and the attributes."""
    graph, positions = module.graph, []
    constants: dict[object, tuple[fx.Node, Tensor]] = {}
    placeholders = [n for n in graph.nodes if n.op == "placeholder"]
    for position, node in enumerate(placeholders):
        if node.users:
            positions.append(position)
        else:
            graph.erase_node(node)
    start = next(n for n in graph.nodes if n.op != "placeholder")
    for node in [n for n in graph.nodes if n.op == "get_attr"]:
        if node.target not in constants:
            with graph.inserting_before(start):
                constants[node.target] = graph.placeholder(f"constant_{len(constants)}"), getattr(module, node.target)
        node.replace_all_uses_with(constants[node.target][0])
        graph.erase_node(node)
    return positions, [value for _, value in constants.values()]


def written(module: fx.GraphModule) -> set[int]:
    """Positions of the arguments that the graph's operations are declared to change in place."""
    roots: dict[fx.Node, int] = {}
    found: set[int] = set()
    for node in module.graph.nodes:
        if node.op == "placeholder":
            roots[node] = len(roots)
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None:
            continue
        for given, declared in zip(node.args, schema.arguments, strict=False):
            alias = declared.alias_info
            if alias is not None and isinstance(given, fx.Node) and given in roots:
                roots[node] = roots[given]
                if alias.is_write:
                    found.add(roots[given])
    return found
