"""One step of a recurrence as flat programs: what it computes, and what becomes of a gradient on its way back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, cast

import torch
from torch import Tensor, fx
from torch.distributions import Distribution

from dlvm.nets.flat_program import flat_program

aten = torch.ops.aten
Step = Callable[..., tuple[Tensor, ...]]  # (state, *inputs) -> (next state, *others)
Program = Callable[..., list[Tensor]]


class Cell(NamedTuple):
    """A step without its Python, in three programs on tensors.

    Attributes:
        prepare: of the step's own tensors, which it reads beside its arguments -> what is the same at each step.
        forward: of (state, *inputs, *own, *prepared) -> [next state, *others, *kept].
        backward: of (*gradients of next state and others, *kept, state, *inputs, *own, *prepared) -> [of the state].
        outputs: how many the step has.
        kept: how many numbers of each step its gradient needs, by their shapes.
    """

    prepare: Program
    forward: Program
    backward: Program
    outputs: int
    kept: int


def trace(step: Step, state: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Cell, list[Tensor]] | None:
    """The programs of a step, and the tensors of its own; None where it cannot be one.

    It cannot where it draws, reads numbers into Python, changes tensors in place, or does not depend on the state.
    """
    # here, since it brings sympy and half of the compiler along
    from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx

    with disable_proxy_modes_tracing(), torch.enable_grad(), _unchecked():
        at = state.detach().clone().requires_grad_()
        given = tuple(value.detach().clone() for value in inputs)
        try:
            gradients = [torch.zeros_like(value) for value in step(at, *given)]

            def both(at: Tensor, *rest: Tensor) -> list[Tensor]:
                outputs = step(at, *rest[: len(given)])
                through = [(value, g) for value, g in zip(outputs, rest[len(given) :], strict=True) if value.grad_fn]
                (back,) = torch.autograd.grad([v for v, _ in through], at, [g for _, g in through])
                return [*(value.detach() for value in outputs), back]

            graph = make_fx(both)(at, *given, *gradients)
        except Exception:  # whatever a step does that no flat program can, the ordinary loop does
            return None
    return _divided(graph, 1 + len(given)) if all(map(_kept_apart, list(graph.graph.nodes))) else None


@contextmanager
def _unchecked() -> Iterator[None]:
    """Inside, distributions read no numbers to check them; what is run over all steps at once does."""
    usual = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(usual)


def _kept_apart(node: fx.Node) -> bool:
    """Whether a node neither draws nor changes what others see; one that fills a tensor of its own gives a new one."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return True
    if torch.Tag.nondeterministic_seeded in target.tags:
        return False
    if target is aten.detach.default:
        node.replace_all_uses_with(node.all_input_nodes[0])
    elif target._schema.is_mutable:
        name, changed = target._schema.name.removeprefix("aten::"), node.args[0]
        usual = getattr(aten, name.removesuffix("_"), None) if name.endswith("_") else None
        usual = getattr(usual, target._overloadname, None)
        if usual is None or not isinstance(changed, fx.Node) or len(changed.users) > 1 or not _own(changed):
            return False
        node.target = usual
    return True


def _own(node: fx.Node) -> bool:
    """Whether a node has made its tensor, which is no view of another's."""
    returned = node.target._schema.returns if isinstance(node.target, torch._ops.OpOverload) else ()
    return len(returned) == 1 and returned[0].alias_info is None


def _divided(graph: fx.GraphModule, arguments: int) -> tuple[Cell, list[Tensor]]:
    """The graph in three: what depends on the step's own tensors alone, on its arguments, and on gradients."""
    nodes = list(graph.graph.nodes)
    places = [node for node in nodes if node.op == "placeholder"]
    own = [node for node in nodes if node.op == "get_attr"]
    *outputs, back = nodes[-1].args[0]
    steady, ahead = set(own), set(places[:arguments]) | set(own)
    for node in nodes:
        if node.op == "call_function":
            if all(a in steady for a in node.all_input_nodes):
                steady.add(node)
            if all(a in ahead for a in node.all_input_nodes):
                ahead.add(node)
    computed = [node for node in nodes if node.op == "call_function"]
    behind = _needed([back], [node for node in computed if node not in ahead])
    front = [node for node in computed if node in ahead and node not in steady]
    kept = [node for node in front if any(user in behind for user in node.users)]
    forwards = _needed([*outputs, *kept], front)
    prepared = [n for n in computed if n in steady and any(u in behind or u in forwards for u in n.users)]
    before = _needed(prepared, [node for node in computed if node in steady])
    beside = [*places[:arguments], *own, *prepared]
    cell = Cell(
        _program(graph, own, before, prepared),
        _program(graph, beside, forwards, [*outputs, *kept]),
        _program(graph, [*places[arguments:], *kept, *beside], behind, [back]),
        len(outputs),
        len(kept),
    )
    return cell, [_attribute(graph, str(node.target)) for node in own]


def _needed(wanted: Iterable[fx.Node], among: list[fx.Node]) -> list[fx.Node]:
    """Those nodes, in their order, of which something wanted is made."""
    needed = set(wanted)
    for node in reversed(among):
        if node in needed:
            needed.update(node.all_input_nodes)
    return [node for node in among if node in needed]


def _program(graph: fx.GraphModule, given: list[fx.Node], computed: list[fx.Node], wanted: list[fx.Node]) -> Program:
    made = fx.Graph()
    copies = {node: made.placeholder(f"a{i}") for i, node in enumerate(given)}
    for node in computed:
        copies[node] = made.node_copy(node, copies.__getitem__)
    made.output([copies[node] for node in wanted])
    made.lint()
    return flat_program(made)


def _attribute(graph: fx.GraphModule, path: str) -> Tensor:
    value: object = graph
    for name in path.split("."):
        value = getattr(value, name)
    return cast(Tensor, value)
