"""A captured graph as a CUDA graph: one launch for the whole step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

WARM_UPS = 3
_pools: dict[torch.device, Any] = {}  # torch's handles, whose type it keeps to itself


def graphable(module: fx.GraphModule, arguments: list[Tensor]) -> bool:
    """Whether everything that the graph touches lies on one CUDA device and has a fixed size."""
    values = [node.meta["val"] for node in module.graph.nodes if isinstance(node.meta.get("val"), Tensor)]
    devices = {value.device for value in (*arguments, *values)}
    return len(devices) == 1 and devices.pop().type == "cuda"


class CudaGraph:
    """Runs a flat function by replaying its kernels from one CUDA graph.

    Arguments that change from call to call are copied into fixed places; the others are read where they lie, and the
    graph is made anew when one has moved. Results lie in fixed places, too: they hold until the next call. Randomness
    comes from the default CUDA generator, whose state may be saved and restored between calls.

    Args:
        run: a function of tensors without host reads.
        arguments: an example of its arguments.
        batch: positions of those that are other tensors from call to call.
        written: positions of those that the function changes in place.

    References:
        Accelerating PyTorch with CUDA Graphs, Nguyen, Carilli, Eryilmaz, Singh, Lin, Gimelshein, Desmaison, Yang, 2021,
            pytorch.org/blog/accelerating-pytorch-with-cuda-graphs.
    """

    def __init__(self, run: Callable[..., list[Tensor]], arguments: list[Tensor], batch: list[int], written: list[int]):
        self.run, self.written = run, written
        self.copied = [*batch, *written]
        self.fixed = [at for at in range(len(arguments)) if at not in set(self.copied)]
        self._make(arguments)

    @torch.no_grad()
    def _make(self, arguments: list[Tensor]) -> None:
        self.static = list(arguments)
        for at in self.copied:
            self.static[at] = arguments[at].detach().clone()
        self.addresses = self._addresses(arguments)
        device = arguments[0].device
        state = torch.cuda.get_rng_state(device)
        side = torch.cuda.Stream(device)
        with torch.cuda.device(device):
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):  # libraries set up their workspaces outside the recording
                for _ in range(WARM_UPS):
                    self.run(*self.static)
            torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            pool = _pools.setdefault(device, torch.cuda.graph_pool_handle())  # no two graphs run at a time
            with torch.cuda.graph(self.graph, pool=pool, stream=side):
                self.results = self.run(*self.static)
        torch.cuda.set_rng_state(state, device)

    def _addresses(self, arguments: Sequence[Tensor]) -> list[int]:
        return [arguments[at].data_ptr() for at in self.fixed]

    def __call__(self, *arguments: Tensor) -> list[Tensor]:
        if self._addresses(arguments) != self.addresses:
            self._make(list(arguments))
        for at in self.copied:
            self.static[at].copy_(arguments[at], non_blocking=True)
        self.graph.replay()
        for at in self.written:
            arguments[at].copy_(self.static[at])
        return self.results
