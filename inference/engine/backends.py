"""What a captured graph is replayed by: a CUDA graph of it, or what a compiler makes of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import cast

import torch
from torch import Tensor, fx

from dlvm.inference.console import first_line
from dlvm.inference.engine.capture import Captured
from dlvm.inference.engine.cuda_graph import CudaGraph, graphable
from dlvm.inference.engine.policy import marker_of
from dlvm.inference.engine.recording import Refused
from dlvm.inference.programs.randomness import untouched


class NoCompiler(RuntimeError):
    """The graph cannot be compiled here; the message says why, in one line."""


def compile_graph(module: fx.GraphModule, arguments: list[Tensor]) -> Callable[..., list[Tensor]]:
    """Compiles a graph for arguments like these with inductor; draws the same random numbers as the graph itself.

    Raises:
        NoCompiler: there is no C++ compiler, or the graph cannot be compiled.
    """
    import torch._inductor  # here, since it takes as long to import as all of torch

    options: dict[str, bool | int] = {"fallback_random": True}
    if not any(a.is_cuda for a in arguments):
        options["compile_threads"] = 1  # on few cores a pool of compilers costs more than it gains
    copy = fx.Graph()
    outputs = cast(list[fx.Node], copy.graph_copy(module.graph, {}))
    unused = [node for node in copy.nodes if not node.users and node not in outputs and _draws(node)]
    copy.output([*outputs, *unused])  # or else inductor would drop draws that nobody uses, and with them the noise
    try:
        with torch.no_grad():
            compiled = torch._inductor.compile(fx.GraphModule({}, copy), [a.detach() for a in arguments], options)
            compiled(*(a.detach().clone() for a in arguments))
    except Exception as error:  # no compiler, or one that fails: the captured graph still runs
        raise NoCompiler(f"{type(error).__name__}: {first_line(error)}") from error
    with suppress(OSError):  # a mark in a cache, no more
        marker = marker_of(module, arguments)
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    return (lambda *given: compiled(*given)[: len(outputs)]) if unused else compiled


def _draws(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def install(captured: Captured, run: Callable[..., list[Tensor]]) -> None:
    """Replays by ``run`` from now on, on a GPU as one launch.

    Raises:
        Refused: it does not compute what the graph computes.
    """
    if graphable(captured.graph.module, captured.examples):
        try:
            with untouched(), captured.state.restored():
                run = CudaGraph(run, captured.examples, captured.copied, captured.written)
        except RuntimeError as error:
            raise Refused(f"it cannot be made a CUDA graph ({first_line(error)})") from error
    if run is not captured.replay:
        captured.use(run)


def install_compiled(captured: Captured) -> None:
    """Compiles a captured graph and installs the result.

    Raises:
        NoCompiler: it cannot be compiled here, or computes something else then.
    """
    with untouched():
        run = compile_graph(captured.graph.module, captured.examples)
    try:
        install(captured, run)
    except Refused as error:
        raise NoCompiler(str(error)) from error
