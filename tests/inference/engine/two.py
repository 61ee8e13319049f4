"""Programs of two tensors, one of which may be None, with options of other kinds."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import nn

X, Y = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))


class Two(PyroModule):
    """Two tensors, one of which may be None, a number, a flag and a list."""

    def __init__(self, site: str):
        super().__init__("model" if site == "x" else "guide")
        self.net = nn.Linear(2, 4) if site == "x" else nn.Linear(4, 2)
        self.register_buffer("kept", torch.ones(6, 4))
        self.site = site

    def forward(self, x, y=None, factor=1.0, flag=False, more=()):
        with pyro.plate("data", len(x)):
            if self.site == "z":
                pyro.sample("z", dist.Normal(self.net(x) + (0 if y is None else self.net(y)), 0.5).to_event(1))
                return
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0 + flag).to_event(1))
            loc = self.net(z) * factor + sum(more)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)
            pyro.sample("y", dist.Normal(loc, 2.0).to_event(1), obs=y)


def two():
    return Two("x"), Two("z"), ()
