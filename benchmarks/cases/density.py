"""The density of a masked autoencoder, and a step that maximises it, beside PyTorch written by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.attempts import Call, ready
from benchmarks.config import Config
from benchmarks.results import Results
from benchmarks.targets import DENSITY
from benchmarks.timing import measure
from benchmarks.variants import HAND, LR
from dlvm.distributions import Bits, ChainRule
from dlvm.guides import FullyObserved
from dlvm.inference import ELBO, SVI
from dlvm.inference.engine.threads import settled
from dlvm.models import FullyVisible
from dlvm.nets import OrderedMADE

BATCH, HIDDEN = 100, (1000, 4000)
DENSE, STEP = "dlvm", "captured"


class MADETwin(nn.Module):
    """One hidden layer, degrees spread evenly, ReLU, no direct connections."""

    below: Tensor
    above: Tensor

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        inputs, units = torch.arange(1, dim + 1), torch.linspace(0, dim - 1, hidden).round()
        self.first, self.last = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.register_buffer("below", (units[:, None] >= inputs).float())
        self.register_buffer("above", (inputs[:, None] > units).float())

    def forward(self, x: Tensor) -> Tensor:
        """log p(x), shape (batch,)."""
        h = F.relu(F.linear(x, self.below * self.first.weight, self.first.bias))
        logits = F.linear(h, self.above * self.last.weight, self.last.bias)
        return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)


def run(config: Config, results: Results) -> None:
    dim, widths = config.sizes.x_dim, (2 * config.sizes.x_dim,) if config.quick else HIDDEN
    x = (torch.rand(BATCH, dim, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    for width in widths:
        name = f"{DENSITY}, {width} units"
        makers: dict[str, Callable[[], Call]] = {
            DENSE: partial(density, dim, width, x),
            HAND: partial(by_hand, dim, width, x),
        }
        makers |= {STEP: partial(step, dim, width, x), f"{HAND} step": partial(step_by_hand, dim, width, x)}
        calls = ready(name, makers, results)
        quiet = partial(settled, config.threads)
        timings = measure(calls, config.repetitions, config.block_seconds, quiet=quiet)
        results.add_timings(name, timings, [(DENSE, HAND), (STEP, f"{HAND} step")])


def model_of(dim: int, width: int) -> FullyVisible:
    return FullyVisible(ChainRule(OrderedMADE(dim, (width,), direct=False), Bits()))


def twin_of(model: FullyVisible, dim: int, width: int) -> MADETwin:
    """The same density by hand."""
    twin = MADETwin(dim, width)
    with torch.no_grad():
        for own, other in zip(twin.parameters(), model.parameters(), strict=True):
            own.copy_(other)
    return twin


def density(dim: int, width: int, x: Tensor) -> Callable[[], Tensor]:
    model = model_of(dim, width)

    @torch.no_grad()
    def call() -> Tensor:
        return model.likelihood().log_prob(x)

    return call


def by_hand(dim: int, width: int, x: Tensor) -> Callable[[], Tensor]:
    return torch.no_grad()(partial(twin_of(model_of(dim, width), dim, width), x))


def step(dim: int, width: int, x: Tensor) -> Callable[[], object]:
    adam = partial(torch.optim.Adam, lr=LR, fused=True)
    svi = SVI(model_of(dim, width), FullyObserved(), adam, ELBO(), engine="captured")
    return partial(svi.step, x)


def step_by_hand(dim: int, width: int, x: Tensor) -> Callable[[], object]:
    twin = twin_of(model_of(dim, width), dim, width)
    adam = torch.optim.Adam(twin.parameters(), lr=LR, fused=True)

    def call() -> float:
        adam.zero_grad()
        loss = -twin(x).sum()
        loss.backward()
        adam.step()
        return loss.item()

    return call
