"""Every family in every order, for models of one and two layers and odd supports, under each kind of objective."""

from __future__ import annotations

from functools import partial
from itertools import product

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

from dlvm.distributions import Bernoulli, DiagonalNormal, StandardNormal
from dlvm.experiments.options.guides import GUIDES
from dlvm.guides import Joint, Ladder, latents
from dlvm.inference import ELBO, IWAE, SVI, DReG, check
from dlvm.models import HVAE, VAE
from dlvm.nets import MLP

X = (torch.rand(6, 5, generator=torch.Generator().manual_seed(0)) > 0.5).float()
PAIRS = [(order, "two layers") for order in ("top_down", "bottom_up", "independent")]
PAIRS += [("top_down", "one layer"), ("bottom_up", "positive")]


class Positive(PyroModule):
    """z2 ~ Gamma, two of them, z1 | z2 a matrix, x."""

    def __init__(self):
        super().__init__("model")
        self.net = nn.Linear(4, 5)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Gamma(2.0, 1.0).expand([2]).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(z2[..., None, :], 1.0).expand([*z2.shape[:-1], 2, 2]).to_event(2))
            pyro.sample("x", dist.Bernoulli(logits=self.net(z1.flatten(-2))).to_event(1), obs=x)


MODELS = {
    "one layer": lambda: VAE(3, Bernoulli(MLP(3, 6, 5))),
    "two layers": lambda: HVAE(StandardNormal(2), [DiagonalNormal(MLP(2, 6), 3)], Bernoulli(MLP(3, 6, 5))),
    "positive": Positive,
}
OBJECTIVES = {
    "analytic": partial(ELBO, analytic_kl=True),
    "iwae": partial(IWAE, 3),
    "dreg": lambda: IWAE(3, DReG()),
}
CELLS = [(family, *pair, objective) for family, pair, objective in product(GUIDES, PAIRS, OBJECTIVES)]
FEW = [pytest.param(*cell, marks=() if i % 16 == 5 else pytest.mark.slow) for i, cell in enumerate(CELLS)]


def one_step(model, guide, objective):
    """Every parameter of the guide moves, and stays finite."""
    check(model, guide, objective, X)
    before = [p.detach().clone() for p in guide.parameters()]
    svi = SVI(model, guide, partial(torch.optim.Adam, lr=1e-3), objective, engine="eager")
    for _ in range(2):
        svi.step(X)
    after = [p.detach() for p in guide.parameters()]
    assert all(p.isfinite().all() for p in after)
    still = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if torch.equal(a, b)]
    return still


@pytest.mark.parametrize("family, order, kind, objective", FEW)
def test_a_family_steps(family, order, kind, objective):
    pyro.set_rng_seed(0)
    model = MODELS[kind]()
    guide = GUIDES[family](latents(model, X), MLP(5, 6), order=order)
    assert not one_step(model, guide, OBJECTIVES[objective]())


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("make", [Joint, Ladder, partial(Ladder, merge="residual")], ids=["joint", "ladder", "nvae"])
def test_guides_across_layers_step_too(make, objective):
    pyro.set_rng_seed(0)
    model = MODELS["two layers"]()
    extra = () if make is Joint else (model,)
    assert not one_step(model, make(latents(model, X), MLP(5, 6), *extra), OBJECTIVES[objective]())
