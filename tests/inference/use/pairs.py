"""Small pairs whose every answer is known, and a table without pandas."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule

from dlvm.models import PPCA

WEIGHT = torch.tensor([[1.0, 0.5], [0.0, 1.0], [1.0, -1.0], [0.5, 0.5]])
LOC = torch.tensor([0.1, -0.2, 0.0, 0.3])
LINEAR = PPCA(WEIGHT, LOC, 0.5).requires_grad_(False)
X = torch.randn(23, 4, generator=torch.Generator().manual_seed(3)) + LOC
CLASSES = torch.tensor([0.2, 0.5, 0.3])
CENTRES = torch.tensor([[-1.0, 0.0], [1.0, 0.5], [0.0, -1.0]])


def posterior(x, n=1):
    """The exact p(z | x) of LINEAR."""
    with pyro.plate("data", len(x)):
        return pyro.sample("z", LINEAR.posterior(x))


def shifted(x, n=1):
    """z by way of a draw that the model has not: its mean is that of a draw, and so known with an error."""
    with pyro.plate("data", len(x)):
        exact = LINEAR.posterior(x)
        u = pyro.sample("u", dist.Normal(exact.loc, 0.3).to_event(1), infer={"is_auxiliary": True})
        return pyro.sample("z", dist.Normal(u, torch.tensor([0.4, 0.2])).to_event(1))


class Mixture(PyroModule):
    """A class y, and a point x about its centre."""

    def forward(self, x=None, n=1):
        with pyro.plate("data", n if x is None else len(x)):
            y = pyro.sample("y", dist.Categorical(CLASSES))
            return pyro.sample("x", dist.Normal(CENTRES[y], 1.0).to_event(1), obs=x)

    def posterior(self, x):
        """p(y | x), by enumeration."""
        log_px = dist.Normal(CENTRES, 1.0).to_event(1).log_prob(x[:, None])
        return (CLASSES.log() + log_px).softmax(-1)


MIXTURE = Mixture("model")
POINTS = torch.randn(9, 2, generator=torch.Generator().manual_seed(5))


def guess(x, n=1):
    """q(y | x), not quite the posterior."""
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Categorical(0.7 * MIXTURE.posterior(x) + 0.1))


class Table:
    """What is asked of a DataFrame."""

    def __init__(self, numbers, index, columns):
        self.numbers, self.index, self.columns = np.asarray(numbers), list(index), list(columns)
        self.dtypes = [SimpleNamespace(kind=self.numbers.dtype.kind) for _ in self.columns]

    def to_numpy(self):
        return self.numbers


TABLE = Table(X.double().numpy(), [f"cell {i}" for i in range(len(X))], ["a", "b", "c", "d"])
