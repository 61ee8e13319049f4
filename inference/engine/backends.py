"""Compiling a captured graph to one native kernel, where a compiler is at hand and the steps to come repay it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
import torch._inductor
from torch import Tensor, fx

from inference.notices import first_line

COLD_SECONDS, SECONDS_PER_OPERATION, WARM_SECONDS = 8.0, 0.017, 2.5
SAVED_PER_OPERATION, SAVED_SHARE = 3e-6, 0.25


class NoCompiler(RuntimeError):
    """The graph cannot be compiled here; the message says why, in one line."""


def compile_graph(module: fx.GraphModule, arguments: list[Tensor]) -> Callable[..., list[Tensor]]:
    """Compiles a graph for arguments like these with inductor; draws the same random numbers as the graph itself.

    Raises:
        NoCompiler: there is no C++ compiler, or the graph cannot be compiled.
    """
    options = {"fallback_random": True}
    if not any(a.is_cuda for a in arguments):
        options["compile_threads"] = 1  # on few cores a pool of compilers costs more than it gains
    copy = fx.Graph()
    outputs = copy.graph_copy(module.graph, {})
    unused = [node for node in copy.nodes if not node.users and node not in outputs and _draws(node)]
    copy.output([*outputs, *unused])  # or else inductor would drop draws that nobody uses, and with them the noise
    try:
        with torch.no_grad():
            compiled = torch._inductor.compile(fx.GraphModule({}, copy), [a.detach() for a in arguments], options)
            compiled(*(a.detach().clone() for a in arguments))
    except Exception as error:  # no compiler, or one that fails: the captured graph still runs
        raise NoCompiler(f"{type(error).__name__}: {first_line(error)}") from error
    with suppress(OSError):  # a mark in a cache, no more
        marker = _marker(module, arguments)
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    return (lambda *given: compiled(*given)[: len(outputs)]) if unused else compiled


def _draws(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def seconds_to_compile(module: fx.GraphModule, arguments: list[Tensor], size: int) -> float:
    """An estimate: compilers take some time per operation, far less where they have seen this graph before."""
    if _marker(module, arguments).exists():
        return WARM_SECONDS
    return COLD_SECONDS + SECONDS_PER_OPERATION * size


def seconds_saved(size: int, step: float) -> float:
    """An estimate of what one compiled step saves against one of ``step`` seconds."""
    return min(max(SAVED_PER_OPERATION * size, SAVED_SHARE * step), 0.8 * step)


def _marker(module: fx.GraphModule, arguments: list[Tensor]) -> Path:
    """A file in inductor's own cache that tells that this graph was compiled there."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    shapes = [(tuple(a.shape), a.stride(), str(a.dtype), str(a.device)) for a in arguments]
    text = f"{torch.__version__} {torch.get_num_threads()} {shapes} {module.code}"
    return Path(os.path.join(cache_dir(), "captured", hashlib.sha256(text.encode()).hexdigest()))
