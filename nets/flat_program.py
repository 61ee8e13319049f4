"""A flat graph of operations as a Python function, without modules or dispatch by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx


def flat_program(graph: fx.Graph) -> Callable[..., list[Tensor]]:
    """A Python function of one line per operation, each bound to its kernel: quicker than the module's own forward."""
    names: dict[str, Any] = {}
    lines: list[str] = []
    arguments: list[str] = []
    last = {used: node for node in graph.nodes for used in node.all_input_nodes}

    def text(value: object) -> str:
        if isinstance(value, fx.Node):
            return value.name
        if isinstance(value, (list, tuple)):
            inside = ", ".join(map(text, value))
            return f"[{inside}]" if isinstance(value, list) else f"({inside},)"
        if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
            return repr(value)
        names[name := f"v{len(names)}"] = value
        return name

    for node in graph.nodes:
        if node.op == "placeholder":
            arguments.append(node.name)
        elif node.op == "output":
            lines.append(f"return {text(node.args[0])}")
        else:
            target = node.target._op if isinstance(node.target, torch._ops.OpOverload) else node.target
            names[kernel := f"f{len(names)}"] = target
            given = [text(a) for a in node.args] + [f"{key}={text(a)}" for key, a in node.kwargs.items()]
            lines.append(f"{node.name} = {kernel}({', '.join(given)})")
            if done := [n.name for n in node.all_input_nodes if last[n] is node]:
                lines.append(f"{' = '.join(done)} = None")
    bound = [f"{name}={name}" for name in names]
    source = f"def replay({', '.join([*arguments, *bound])}):\n    " + "\n    ".join(lines)
    exec(compile(source, "<flat program>", "exec"), names)
    return names["replay"]
