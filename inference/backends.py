"""What a captured graph runs on: operation by operation, compiled, and on a GPU as one launch."""

from __future__ import annotations

import math
from collections.abc import Callable

from inference.capture import Captured
from inference.compiler import NoCompiler, compile_graph, seconds_saved, seconds_to_compile
from inference.cuda_graph import CudaGraph, graphable
from inference.notices import first_line
from inference.randomness import untouched
from inference.recording import Refused


def install(captured: Captured, run: Callable) -> None:
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


class Prospects:
    """Whether compiling a graph would repay itself.

    Args:
        captured: the graph.
        seconds: what one replay takes.
    """

    def __init__(self, captured: Captured, seconds: float):
        graph = captured.graph
        self.cost = seconds_to_compile(graph.module, captured.examples, graph.size)
        self.steps = math.ceil(self.cost / seconds_saved(graph.size, seconds))
