"""Small linear-Gaussian programs with a switch for whatever a program may do besides."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import torch
from oracles.forcing import gradient
from pyro import poutine
from pyro.nn import PyroModule, PyroParam
from torch import nn

XS = torch.tensor([[0.3, -1.0], [1.2, 0.4], [-0.7, 0.9], [0.1, 2.0]], dtype=torch.float64)
SGD = partial(torch.optim.SGD, lr=1.0)


class Model(PyroModule):
    """z ~ N(0, I), x ~ N(w z, s): z may be masked, x with a factor beside it, the plate of any name."""

    def __init__(self, mask: torch.Tensor | None = None, factor: bool = False, plate: str = "data"):
        super().__init__("model")
        self.weight = nn.Parameter(torch.tensor([[0.8, 0.2], [0.0, 0.5]]))
        self.noise = PyroParam(torch.tensor(1.5), constraint=dist.constraints.positive)
        self.mask, self.factor, self.plate = mask, factor, plate

    def forward(self, x):
        with pyro.plate(self.plate, len(x)):
            with poutine.mask(mask=True if self.mask is None else self.mask):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            if self.factor:
                pyro.factor("energy", -z.square().sum(-1))
            pyro.sample("x", dist.Normal(z @ self.weight, self.noise).to_event(1), obs=x)


class Guide(PyroModule):
    def __init__(self, mask: torch.Tensor | None = None, plate: str = "data"):
        super().__init__("guide")
        self.weight = nn.Parameter(torch.tensor([[0.3, 0.0], [0.1, 0.3]]))
        self.log_scale = nn.Parameter(torch.tensor([-0.3, -0.2]))
        self.norm, self.mask, self.plate = nn.Identity(), mask, plate

    def forward(self, x):
        with pyro.plate(self.plate, len(x)), poutine.mask(mask=True if self.mask is None else self.mask):
            pyro.sample("z", dist.Normal(self.norm(x) @ self.weight, self.log_scale.exp()).to_event(1))


class Layers(PyroModule):
    """z2 -> z1 -> x as a model; as a guide, in an order that an argument or an attribute turns."""

    def __init__(self, name: str, up: bool = False, order: str = "top_down"):
        super().__init__(name)
        self.name, self.up, self.order = name, up, order
        self.shift, self.norm = nn.Parameter(torch.tensor([0.3, 0.6])), nn.Identity()

    def forward(self, x, up=False):
        guide = self.name == "guide"
        names = ["z2", "z1"]
        if guide and (up or self.up or self.order == "bottom_up"):
            names.reverse()
        top = self.norm(x) * self.shift if guide else torch.zeros(2)
        with pyro.plate("data", len(x)):
            first = pyro.sample(names[0], dist.Normal(top, 1.0).to_event(1))
            second = pyro.sample(names[1], dist.Normal(first * self.shift, 1.0).to_event(1))
            if not guide:
                pyro.sample("x", dist.Normal(second, 1.0).to_event(1), obs=x)


def climbed(objective, model, guide, *args, of=None, **kwargs) -> torch.Tensor:
    """The gradient of the bound in the parameters, flat, under one seed."""
    pyro.clear_param_store()  # where a PyroParam of an earlier model has the same name
    pyro.set_rng_seed(3)
    parameters = [p for part in ((model, guide) if of is None else of) for p in part.parameters()]
    return -gradient(objective.differentiable_loss(model, guide, *args, **kwargs), parameters)
