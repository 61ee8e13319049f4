"""Parameters of their own for every datum: the best of the family for each, and no amortisation gap."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import GOLDEN_2, X_2, assert_close
from torch import nn

from dlvm.distributions import FullRankNormal
from dlvm.guides import Diagonal, latents
from dlvm.guides.local import Local, Table
from dlvm.inference import ELBO, IWAE, SVI, DReG, evaluate
from dlvm.models import PPCA

XS = torch.stack([X_2, -X_2, X_2 + 1, X_2.flip(0)])


def build():
    model = PPCA(GOLDEN_2.weight, GOLDEN_2.mu, GOLDEN_2.s2.sqrt()).requires_grad_(False)
    return model, latents(model, XS)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("family, width, gap", [(None, None, GOLDEN_2.diagonal_gap), (FullRankNormal, 9, 0.0)])
def test_every_datum_gets_the_best_of_its_family(family, width, gap, minimised):
    model, sites = build()
    guide = Local(sites, len(XS), **({} if family is None else {"family": family}), width=width).double()
    bound = -minimised(ELBO(), model, _Repeated(guide, 8), XS, dims=3)
    assert_close(GOLDEN_2.log_px(XS).mean() - bound, gap, 1e-6)


class _Repeated(nn.Module):
    """The guide for data of which each stands `times` in a row."""

    def __init__(self, guide, times):
        super().__init__()
        self.guide = guide
        guide.encoder.index = lambda x: torch.arange(len(x)) // times

    def forward(self, x):
        return self.guide(x)


@pytest.mark.usefixtures("float64")
def test_it_beats_an_encoder_by_the_amortisation_gap(minimised):
    """An encoder that sees nothing of x has one posterior for all."""
    model, sites = build()

    class Blind(nn.Module):
        out_features = 1

        def forward(self, x):
            return x.new_ones(len(x), 1)

    blind = Diagonal(sites, Blind()).double()
    amortised = -minimised(ELBO(), model, blind, XS, dims=3)
    own = -minimised(ELBO(), model, _Repeated(Local(sites, len(XS)).double(), 8), XS, dims=3)
    means = GOLDEN_2.posterior(XS).loc
    spread = means - means.mean(0)
    expected = 0.5 * torch.einsum("ni,ij,nj->n", spread, GOLDEN_2.precision, spread).mean()
    assert_close(own - amortised, expected, 1e-6)


def test_batches_are_found_by_their_numbers_and_others_stay():
    pyro.set_rng_seed(0)
    xs = torch.randn(20, 5)

    class Model(pyro.nn.PyroModule):
        def __init__(self):
            super().__init__("model")
            self.net = nn.Linear(3, 5)

        def forward(self, x, index):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(self.net(z), 0.5).to_event(1), obs=x)

    index = torch.tensor([3, 7, 11])
    model = Model()
    guide = Local(latents(model, xs[index], index), 20, index=lambda x, index: index)
    before = guide.encoder.rows.detach().clone()
    svi = SVI(model, guide, partial(torch.optim.SGD, lr=1e-2), IWAE(2, DReG()), engine="captured")
    for _ in range(4):
        svi.step(xs[index], index)
    moved = (guide.encoder.rows != before).any(1)
    assert moved.nonzero().flatten().tolist() == index.tolist() and svi.running == "captured"
    assert evaluate(model, guide, [(xs[index], index)], num_particles=30).num_data == 3


def test_what_a_table_cannot_look_up_is_refused():
    _, sites = build()
    with pytest.raises(ValueError, match="a batch of 2 of 4 data needs their numbers"):
        Local(sites, 4)(XS[:2].float())
    with pytest.raises(ValueError, match="num_data must be at least 1, got 0"):
        Table(0, 3)
