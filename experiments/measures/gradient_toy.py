"""The Gaussian toy on which theory knows how signal and noise of a gradient go with the number of particles."""

from __future__ import annotations

import math
from functools import partial

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.experiments.measures.gradient_moments import Group, Setting


class Toy(PyroModule):
    """z ~ N(loc, I), x | z ~ N(z, I)."""

    def __init__(self, loc: Tensor):
        super().__init__("model")
        self.loc = nn.Parameter(loc)

    def forward(self, x: Tensor | None = None, n: int = 1) -> Tensor:
        with pyro.plate("data", n if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(self.loc, 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


class ToyGuide(PyroModule):
    """q(z | x) = N(weight x + bias, 2/3 I), where the posterior's variance is 1/2."""

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__("guide")
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ self.weight.T + self.bias, math.sqrt(2 / 3)).to_event(1))


def toy(dim: int, num_data: int, perturbation: float, seed: int) -> Setting:
    """Data and a pair near its optimum, with groups of parameters for the model's mean and the guide's two parts.

    Args:
        dim: of data and latents.
        num_data: drawn from the model.
        perturbation: standard deviation of the parameters about their optimum.
        seed: of both.

    References:
        Tighter Variational Bounds are Not Necessarily Better, Rainforth et al., 2018, arXiv:1802.04537.
    """
    pyro.set_rng_seed(seed)
    near = partial(torch.normal, std=perturbation)
    x = torch.randn(dim) + math.sqrt(2) * torch.randn(num_data, dim)
    model, guide = Toy(near(x.mean(0))), ToyGuide(near(torch.eye(dim) / 2), near(x.mean(0) / 2))
    groups = [
        Group("μ (model)", "model", [model.loc]),
        Group("A (guide)", "guide", [guide.weight]),
        Group("b (guide)", "guide", [guide.bias]),
    ]
    return Setting(model, guide, x, groups, [(x,)] * 5)
