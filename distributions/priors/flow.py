"""Priors by flows: steps that bring a value to noise in one pass, and noise to a value in reverse."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from dlvm.distributions.flows.coupling import Coupling
from dlvm.distributions.flows.flow_normal import Bijection, Shift, Step
from dlvm.distributions.scale import positive
from dlvm.nets.arguments import count, made, whole


class FlowPrior(nn.Module):
    """A learned density: the value, standardised, goes through ``depth`` steps to standard noise.

        y_0 = (z - loc) / scale,   y_t = step_t(y_{t-1})
        log p(z) = log N(y_T; 0, I) + sum_t log |det dy_t / dy_{t-1}| - sum_j log scale_j

    The density is one pass of each step's network, which is what training asks of a prior. A draw inverts the steps:
    with ``Coupling`` (RealNVP, or a spline) one pass too; with ``Autoregressive`` (the masked autoregressive flow) one
    pass for each dimension. It starts near N(0, I).

    Args:
        dim: number of dimensions.
        step: makes a step from (dim, width of a context, whether to reverse the dimensions), as ``FlowNormal`` takes
            them; its context is constant here.
        depth: number of steps; every second one reverses the dimensions.

    Raises:
        ValueError: ``depth`` is below 1.

    References:
        Density estimation using Real NVP, Dinh, Sohl-Dickstein, Bengio, 2017, arXiv:1605.08803.
        Masked Autoregressive Flow for Density Estimation, Papamakarios, Pavlakou, Murray, 2017, arXiv:1705.07057.
        Variational Lossy Autoencoder, Chen, Kingma, Salimans, Duan, Dhariwal, Schulman, Sutskever, Abbeel, 2017,
            arXiv:1611.02731.

    Example:
        >>> from functools import partial
        >>> from dlvm.distributions import Affine, Autoregressive
        >>> maf = FlowPrior(3, partial(Autoregressive, bijection=Affine(), hidden=(16,)), depth=2)
        >>> maf().sample((5,)).shape
        torch.Size([5, 3])
    """

    one: Tensor
    zeros: Tensor
    ones: Tensor

    def __init__(self, dim: int, step: Callable[[int, int, bool], nn.Module] = Coupling, depth: int = 4):
        super().__init__()
        count(dim=dim)
        whole(depth=depth)
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}; for no flow use ARDNormal")
        self.steps = nn.ModuleList(made("step", step, dim, 1, bool(t % 2)) for t in range(depth))
        self.loc, self.raw = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        self.register_buffer("one", torch.ones(1))
        self.register_buffer("zeros", torch.zeros(dim))
        self.register_buffer("ones", torch.ones(dim))

    def forward(self) -> dist.Distribution:
        noise = dist.Normal(self.zeros, self.ones).to_event(1)
        flow = [Step(cast(Bijection, step), self.one).inv for step in reversed(self.steps)]
        return dist.TransformedDistribution(noise, [*flow, Step(Shift(), self.loc, positive(self.raw))])
