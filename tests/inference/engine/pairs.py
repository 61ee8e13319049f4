"""One small program of each kind, and every guide that fits it: what an engine has to step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn
from torch.distributions import constraints

from dlvm.distributions import Bernoulli
from dlvm.guides import IAF, Diagonal, FullRank, latents
from dlvm.models import PPCA, VAE
from dlvm.nets import MLP

ROWS, WIDTH = 6, 4


class Hierarchy(PyroModule):
    """z2 -> z1 -> x."""

    def __init__(self):
        super().__init__("model")
        self.upper, self.lower = nn.Linear(2, 3), nn.Linear(3, WIDTH)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(self.upper(z2), 0.7).to_event(1))
            pyro.sample("x", dist.Normal(self.lower(z1), 0.5).to_event(1), obs=x)


class Positive(PyroModule):
    """A scale constrained to be positive."""

    def __init__(self):
        super().__init__("model")
        self.net = nn.Linear(2, WIDTH)
        self.scale = PyroParam(torch.full((WIDTH,), 0.8), constraint=constraints.positive)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.net(z), self.scale).to_event(1), obs=x)


def function() -> Callable:
    """A plain function that declares a network and a constrained parameter."""
    net = nn.Linear(2, WIDTH)

    def model(x):
        pyro.module("net", net)
        noise = pyro.param("noise", lambda: torch.tensor(0.9), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(net(z), noise).to_event(1), obs=x)

    return model


class Masked(PyroModule):
    """Rows that a second argument masks do not count."""

    def __init__(self):
        super().__init__("model")
        self.net = nn.Linear(2, WIDTH)

    def forward(self, x, keep):
        with pyro.plate("data", len(x)), poutine.mask(mask=keep[:, 0]):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.net(z), 1.0).to_event(1), obs=x)


class Minibatch(PyroModule):
    """x is a batch of a plate ten times as large."""

    def __init__(self):
        super().__init__("model")
        self.net = nn.Linear(2, WIDTH)

    def forward(self, x):
        with pyro.plate("data", 10 * ROWS, subsample_size=len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.net(z), 1.0).to_event(1), obs=x)


def data(model: str) -> tuple[Tensor, ...]:
    x = torch.rand(ROWS, WIDTH).round() if model == "vae" else torch.randn(ROWS, WIDTH)
    return (x, torch.tensor([True, False] * (ROWS // 2))[:, None]) if model == "masked" else (x,)


def hand_written(model: Callable, *args: Tensor) -> Callable:
    """A plain function with one free Gaussian per datum and site."""
    spec = latents(model, *args)

    def guide(x, *_):
        plate = next(iter(spec.values())).plates[0]
        with pyro.plate("data", plate.size or len(x), subsample_size=len(x) if plate.size else None):
            for name, latent in spec.items():
                loc = pyro.param(f"{name}_loc", lambda latent=latent: torch.zeros(len(x), *latent.shape))
                scale = pyro.param(f"{name}_scale", lambda: torch.tensor(0.7), constraint=constraints.positive)
                pyro.sample(name, dist.Normal(loc, scale).to_event(1))

    return guide


def amortized(family: Callable, model: Callable, *args: Tensor) -> Callable:
    return family(latents(model, *args), MLP(sum(a.shape[1] for a in args), 5))


def automatic(family: Callable, model: Callable, *args: Tensor) -> Callable:
    return family(model)


MODELS: dict[str, Callable] = {
    "vae": lambda: VAE(2, Bernoulli(MLP(2, 5, WIDTH))),
    "ppca": lambda: PPCA(torch.randn(WIDTH, 2), torch.zeros(WIDTH), 0.5),
    "hierarchy": Hierarchy,
    "positive": Positive,
    "function": function,
    "masked": Masked,
    "minibatch": Minibatch,
}
GUIDES: dict[str, Callable] = {
    "diagonal": partial(amortized, Diagonal),
    "full_rank": partial(amortized, FullRank),
    "iaf": partial(amortized, partial(IAF, width=5)),
    "auto_normal": partial(automatic, AutoNormal),
    "auto_diagonal": partial(automatic, AutoDiagonalNormal),
    "hand_written": hand_written,
}


def pair(model: str = "vae", guide: str = "diagonal") -> tuple[Callable, Callable, tuple[Tensor, ...]]:
    """Model, guide and data; the same ones at every call."""
    pyro.clear_param_store()
    pyro.set_rng_seed(11)
    args, p = data(model), MODELS[model]()
    return p, GUIDES[guide](p, *args), args
