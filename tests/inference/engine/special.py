"""Pairs with a guide of their own: discrete latents, sequences, a plate that draws its own rows."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pairs import ROWS, WIDTH
from pyro.infer import config_enumerate
from pyro.nn import PyroModule
from torch import Tensor, nn

Pair = tuple[Callable, Callable, tuple[Tensor, ...]]


class Bits(PyroModule):
    """Two binary latents per datum."""

    def __init__(self):
        super().__init__("model")
        self.prior, self.net = nn.Parameter(torch.zeros(2)), nn.Linear(2, WIDTH)

    def forward(self, x, **_):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(logits=self.prior).to_event(1))
            pyro.sample("x", dist.Normal(self.net(z), 1.0).to_event(1), obs=x)


class BitsGuide(PyroModule):
    """Scored by the derivative of its log-probability, less a baseline if there is one."""

    def __init__(self, baseline: dict | None = None, net: nn.Module | None = None):
        super().__init__("guide")
        self.head, self.baseline, self.net = nn.Linear(WIDTH, 2), baseline, net

    def forward(self, x, **_):
        infer = {}
        if self.net is not None:
            infer = {"baseline": {"nn_baseline": lambda h: self.net(h).squeeze(-1), "nn_baseline_input": x}}
        elif self.baseline is not None:
            infer = {"baseline": self.baseline}
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=self.head(x)).to_event(1), infer=infer)


def bits() -> Pair:
    return Bits(), BitsGuide(), (torch.randn(ROWS, WIDTH),)


def decaying() -> Pair:
    guide = BitsGuide({"use_decaying_avg_baseline": True, "baseline_beta": 0.7})
    return Bits(), guide, (torch.randn(ROWS, WIDTH),)


def nn_baseline() -> Pair:
    return Bits(), BitsGuide(net=nn.Linear(WIDTH, 1)), (torch.randn(ROWS, WIDTH),)


class Labels(PyroModule):
    """A class and a vector: p(y) p(z) p(x | y, z); y is summed out in the guide or in the model."""

    def __init__(self):
        super().__init__("model")
        self.logits, self.net = nn.Parameter(torch.zeros(3)), nn.Linear(5, WIDTH)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(logits=self.logits))
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            z = z.expand(*torch.broadcast_shapes(y.shape[:-1], z.shape[:-1]), 2)
            h = torch.cat([y.expand(*z.shape[:-1], 3), z], -1)
            pyro.sample("x", dist.Normal(self.net(h), 1.0).to_event(1), obs=x)


class LabelsGuide(PyroModule):
    def __init__(self, labels: bool):
        super().__init__("guide")
        self.loc, self.labels = nn.Linear(WIDTH, 2), labels
        self.head = nn.Linear(WIDTH, 3) if labels else None

    def forward(self, x):
        with pyro.plate("data", len(x)):
            if self.labels:
                pyro.sample("y", dist.OneHotCategorical(logits=self.head(x)), infer={"enumerate": "parallel"})
            pyro.sample("z", dist.Normal(self.loc(x), 0.5).to_event(1))


def enumerated_in_guide() -> Pair:
    return Labels(), LabelsGuide(labels=True), (torch.randn(ROWS, WIDTH),)


def enumerated_in_model() -> Pair:
    model = Labels()
    wrapped = config_enumerate(model, "parallel")
    return wrapped, LabelsGuide(labels=False), (torch.randn(ROWS, WIDTH),)


class Sequence(PyroModule):
    """z_1 -> z_2 -> ..., one x per step of time."""

    def __init__(self):
        super().__init__("model")
        self.step, self.emit = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        z = x.new_zeros(2)
        with pyro.plate("data", len(x)):
            for t in range(x.shape[1]):
                z = pyro.sample(f"z_{t + 1}", dist.Normal(self.step(z), 0.6).to_event(1))
                pyro.sample(f"x_{t + 1}", dist.Normal(self.emit(z), 0.8).to_event(1), obs=x[:, t])


class Recurrent(PyroModule):
    def __init__(self):
        super().__init__("guide")
        self.gru, self.head = nn.GRU(2, 3, batch_first=True), nn.Linear(5, 2)

    def forward(self, x):
        h, _ = self.gru(x.flip(1))
        z = x.new_zeros(len(x), 2)
        with pyro.plate("data", len(x)):
            for t in range(x.shape[1]):
                context = h[:, -1 - t].expand(*z.shape[:-1], 3)
                z = pyro.sample(f"z_{t + 1}", dist.Normal(self.head(torch.cat([context, z], -1)), 0.5).to_event(1))


def sequence() -> Pair:
    return Sequence(), Recurrent(), (torch.randn(ROWS, 3, 2),)


class Rows(PyroModule):
    """Draws three rows of x at every run."""

    def __init__(self, site: str):
        super().__init__("model" if site == "x" else "guide")
        self.net = nn.Linear(2, WIDTH) if site == "x" else nn.Linear(WIDTH, 2)

    def forward(self, x):
        with pyro.plate("data", len(x), subsample_size=3) as rows:
            if self.net.in_features == WIDTH:
                pyro.sample("z", dist.Normal(self.net(x[rows]), 0.5).to_event(1))
            else:
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(self.net(z), 1.0).to_event(1), obs=x[rows])


def subsampled() -> Pair:
    return Rows("x"), Rows("z"), (torch.randn(ROWS, WIDTH),)
