"""A model that holds everything that may change between steps or in them, and how it is annealed."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import nn


class Stateful(PyroModule):
    """What a module may hold beside parameters, each of it in the bound."""

    def __init__(self, norm: nn.Module | None = None):
        super().__init__("model")
        self.norm, self.drop, self.net = norm or nn.Identity(), nn.Dropout(0.3), nn.Linear(2, 4)
        self.register_buffer("beta", torch.tensor(1.0))
        self.register_buffer("mean", torch.zeros(4))
        self.width, self.shift, self.unused = 0.8, nn.Linear(2, 4), nn.Parameter(torch.zeros(3))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=self.beta):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = self.net(self.drop(self.norm(z))) + 0.1 * self.shift(z) + self.mean
            pyro.sample("x", dist.Normal(loc, self.width).to_event(1), obs=x)


class Affine(PyroModule):
    """A guide that scales its noise as a Python number says."""

    def __init__(self):
        super().__init__("guide")
        self.loc, self.scale = nn.Linear(4, 2), 0.5

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.loc(x), self.scale).to_event(1))


def stateful():
    """In the settings that every run starts with."""
    torch.set_default_dtype(torch.float32)
    pyro.enable_validation(True)
    return Stateful(), Affine(), (torch.randn(6, 4),)


def normalised():
    return Stateful(nn.BatchNorm1d(2)), Affine(), (torch.randn(6, 4),)


def anneal(step, svi):
    svi.model.beta.fill_(step / 10)
