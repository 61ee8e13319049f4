"""Each case by hand: plain PyTorch written for speed, without Pyro and without this project's modules.

Every twin maps x to minus the bound, summed over data, in nats; its parameters come in the order of the model's and
then the guide's, so that ``copy_weights`` can fill them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from benchmarks.catalogue import Case
from benchmarks.twins.chain import ChainTwin
from benchmarks.twins.flow import FlowTwin
from benchmarks.twins.images import HierarchyTwin, VAETwin
from benchmarks.twins.sequence import SequenceTwin

__all__ = ["ChainTwin", "FlowTwin", "HierarchyTwin", "SequenceTwin", "VAETwin", "copy_weights", "make", "stepper"]


def make(case: Case) -> nn.Module:
    """The case's twin with parameters of its own."""
    s = case.sizes
    if case.steps:
        return (ChainTwin if case.chain else SequenceTwin)(s.frame_dim, s.state_dim, s.state_hidden)
    if case.depth:
        return FlowTwin(s.x_dim, s.hidden, s.context, s.z_dim, case.depth, s.made_hidden)
    if case.sites > 1:
        return HierarchyTwin(s.x_dim, s.hidden, s.site_dim, s.site_hidden, case.sites)
    return VAETwin(s.x_dim, s.hidden, s.z_dim, case.num_particles, case.analytic)


def copy_weights(twin: nn.Module, sources: Iterable[Tensor]) -> None:
    """Fills the twin's parameters from the model's and the guide's, in this order.

    Raises:
        ValueError: the shapes are not the same, one by one.
    """
    sources, targets = list(sources), list(twin.parameters())
    shapes = [[tuple(t.shape) for t in tensors] for tensors in (sources, targets)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"sources have shapes {shapes[0]}, the twin has {shapes[1]}; pass the parameters of the model and then "
            "those of the guide of the same case"
        )
    with torch.no_grad():
        for target, source in zip(targets, sources, strict=True):
            target.copy_(source)


def stepper(twin: nn.Module, compiled: bool = False, lr: float = 1e-3) -> Callable[[Tensor], float]:
    """x -> loss, one training step by fused Adam; ``compiled`` puts the twin through ``torch.compile``."""
    optimizer = torch.optim.Adam(twin.parameters(), lr=lr, fused=True)
    loss_of = torch.compile(twin) if compiled else twin

    def step(x: Tensor) -> float:
        loss = loss_of(x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
