"""Which steps are worth a capture or a compilation: what each costs, and when the steps to come repay it."""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path

import torch
from torch import Tensor, fx

from dlvm.inference.engine.capture import Captured

COLD_SECONDS, SECONDS_PER_OPERATION, WARM_SECONDS = 8.0, 0.017, 2.5
SAVED_PER_OPERATION, SAVED_SHARE = 3e-6, 0.25


def seconds_to_compile(module: fx.GraphModule, arguments: list[Tensor], size: int) -> float:
    """An estimate: compilers take some time per operation, far less where they have seen this graph before."""
    if marker_of(module, arguments).exists():
        return WARM_SECONDS
    return COLD_SECONDS + SECONDS_PER_OPERATION * size


def seconds_saved(size: int, step: float) -> float:
    """An estimate of what one compiled step saves against one of ``step`` seconds."""
    return min(max(SAVED_PER_OPERATION * size, SAVED_SHARE * step), 0.8 * step)


def marker_of(module: fx.GraphModule, arguments: list[Tensor]) -> Path:
    """A file in inductor's own cache that tells that this graph was compiled there."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    shapes = [(tuple(a.shape), a.stride(), str(a.dtype), str(a.device)) for a in arguments]
    text = f"{torch.__version__} {torch.get_num_threads()} {shapes} {module.code}"
    return Path(os.path.join(cache_dir(), "captured", hashlib.sha256(text.encode()).hexdigest()))


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
