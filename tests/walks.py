"""A linear-Gaussian chain and a guide that goes through it step by step, small enough for answers by hand."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import ConditionalChain
from dlvm.models import LinearGaussianSSM


class Walk(PyroModule):
    """q(z_t | z_t-1, x_t): a linear net."""

    def __init__(self):
        super().__init__("guide")
        self.net, self.log_scale = nn.Linear(3, 1), nn.Parameter(torch.tensor([-0.5]))

    def step(self, last: Tensor, seen: Tensor) -> dist.Distribution:
        return dist.Normal(self.net(torch.cat([last, seen], -1)), self.log_scale.exp()).to_event(1)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        with pyro.plate("data", len(x)):
            return pyro.sample("z", ConditionalChain(self.step, x.new_zeros(1), x.shape[1], x, lengths))


def pair() -> tuple[LinearGaussianSSM, Walk]:
    torch.manual_seed(0)
    return LinearGaussianSSM(1, 2).double(), Walk().double()


def data(sequences: int, steps: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(sequences, steps, 2).double()
