"""Sequences bucketed by length: a model whose sites are as many as its batch has steps."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import nn

from programs.brought import Pair, brought, noise
from programs.exact import Smoother, chains


class Chain(PyroModule):
    def __init__(self):
        super().__init__("model")
        self.a, self.sd = nn.Parameter(torch.tensor(0.8)), nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = torch.zeros(1)
            for t in pyro.markov(range(x.shape[1])):
                z = pyro.sample(f"z_{t}", dist.Normal(self.a * z, 1.0).to_event(1))
                pyro.sample(f"x_{t}", dist.Normal(z, self.sd).to_event(1), obs=x[:, t : t + 1])


class ChainGuide(PyroModule):
    def __init__(self):
        super().__init__("guide")
        self.smoother = Smoother()

    def forward(self, x):
        messages = self.smoother(x, torch.ones_like(x))
        with pyro.plate("data", len(x)):
            z = torch.zeros(1)
            for t, (precision, shift) in enumerate(messages):
                q = dist.Normal(*self.smoother.q((precision[:, None], shift[:, None]), z))
                z = pyro.sample(f"z_{t}", q.to_event(1))


class Recurrent(nn.Module):
    """Features of a sequence of any length."""

    out_features = 8

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(1, 8, batch_first=True)

    def forward(self, x):
        return self.gru(x[..., None])[1][0]


def _bucketed(lengths: tuple[int, ...]) -> Pair:
    batches = [(1.3 * noise(6, n, seed=n),) for n in lengths]
    answer = torch.cat([chains(x, [x.shape[1]] * 6) for (x,) in batches])
    spec = (noise(6, max(lengths)),)
    model, guide = Chain(), ChainGuide()
    return Pair(model, guide, batches, answer, encoder=Recurrent, spec=spec, parts=(model, guide))


@brought("sequences bucketed by length, the long ones first")
def long_bucket_first() -> Pair:
    return _bucketed((4, 2))


@brought("sequences bucketed by length, the short ones first: the first batch has fewer sites than the next")
def short_bucket_first() -> Pair:
    return _bucketed((2, 4, 3))
