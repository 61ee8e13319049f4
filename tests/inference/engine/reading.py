"""A model whose mean depends on something that it reads in a way of its own."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pairs import pair
from pyro.nn import PyroModule
from torch import nn


class Shifted(PyroModule):
    """x = net(z) + read(model, x, z) + noise, where ``read`` looks at something in its own way."""

    def __init__(self, read):
        super().__init__("model")
        self.net, self.count = nn.Linear(2, 4), 0
        self.read = [read]

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.net(z) + self.read[0](self, x, z), 1.0).to_event(1), obs=x)


def reading(read):
    def make():
        _, guide, args = pair("positive")
        return Shifted(read), guide, args

    return make
