"""Guides trained to their optimum by quadrature in place of noise, where it is known how near to log p(x) that lies."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import GOLDEN_1, GOLDEN_2, TWO_LAYER, X_1, X_2, assert_close, normal
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import nn

from dlvm.guides import IAF, Diagonal, FullRank, latents
from dlvm.inference import IWAE, log_weights
from dlvm.models import PPCA
from dlvm.nets import MLP

pytestmark = pytest.mark.usefixtures("float64")
GOLDENS = pytest.mark.parametrize("oracle, x", [(GOLDEN_1, X_1), (GOLDEN_2, X_2)], ids=["golden 1", "golden 2"])


@torch.no_grad()
def kl_to_posterior(model, guide, xs, log_px):
    """KL(q || p(z|x)) for each datum and its standard error, from draws: E_q[r - 1 - log r], r = w / p(x)."""
    log_r = log_weights(model, guide, xs, num_particles=5000) - log_px
    terms = torch.expm1(log_r) - log_r
    return terms.mean(0), terms.std(0) / 5000**0.5


def golden(oracle, x, Guide, **settings):
    model = PPCA(oracle.weight, oracle.mu, oracle.s2.sqrt())
    xs = torch.cat([x[None], normal(oracle.marginal).sample((11,))])
    guide = Guide(latents(model, xs), MLP(len(x), activation=nn.Identity), **settings).double()
    return model, guide, xs


@GOLDENS
@pytest.mark.parametrize("objective", [Trace_ELBO(), TraceMeanField_ELBO(), IWAE(1)], ids=lambda o: type(o).__name__)
def test_the_best_diagonal_guide_misses_by_the_formula(oracle, x, objective, minimised):
    """All three say 1/2 (sum_j log Lambda_jj - log|Lambda|), and q is N(m, 1 / Lambda_jj) for every x."""
    model, guide, xs = golden(oracle, x, Diagonal)
    bound = -minimised(objective, model, guide, xs, dims=len(oracle.precision))
    assert_close(oracle.log_px(xs).mean() - bound, oracle.diagonal_gap, 1e-7)
    assert_close(oracle.diagonal_gap, {4: 0.00456624, 5: 0.08674943}[len(x)], 5e-9)
    q, best = poutine.trace(guide).get_trace(xs).nodes["z"]["fn"], oracle.diagonal_optimum(xs)
    assert_close(q.mean, best.loc, 1e-3)
    assert_close(q.variance, best.cov.diagonal().expand(12, -1), 1e-3)


@pytest.mark.slow
@GOLDENS
@pytest.mark.parametrize("Guide, settings", [(FullRank, {}), (IAF, dict(depth=1, width=()))])
def test_full_rank_and_one_linear_iaf_step_close_the_gap(oracle, x, Guide, settings, minimised):
    """To 1e-4 for every datum, by the guide's own draws; the plain ELBO of the best diagonal guide is left behind."""
    model, guide, xs = golden(oracle, x, Guide, **settings)
    nodes = 2 if Guide is FullRank else 4
    bound = -minimised(IWAE(1), model, guide, xs, dims=len(oracle.precision), nodes=nodes)
    assert -1e-7 < oracle.log_px(xs).mean() - bound < 1e-4
    kl, se = kl_to_posterior(model, guide, xs, oracle.log_px(xs))
    assert (kl + 4 * se < 1e-4).all() and oracle.diagonal_gap > 1e-3


def two_layer(x):
    with pyro.plate("data", len(x)):
        z2 = pyro.sample("z2", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        z1 = pyro.sample("z1", dist.Normal(z2 @ TWO_LAYER.upper.T, TWO_LAYER.s1.sqrt()).to_event(1))
        pyro.sample("x", dist.Normal(z1 @ TWO_LAYER.lower.T, TWO_LAYER.s2.sqrt()).to_event(1), obs=x)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["top_down", "bottom_up", "independent"])
def test_two_layers_lose_nothing_in_either_order_and_the_block_gap_in_none(order, minimised):
    xs = normal(TWO_LAYER.marginal).sample((12,))
    spec, encoder = latents(two_layer, xs), MLP(4, activation=nn.Identity)
    guide = FullRank(spec, encoder, order=order, hidden=()).double()
    bound = -minimised(Trace_ELBO(), two_layer, guide, xs, dims=4)
    gap = TWO_LAYER.log_px(xs).mean() - bound
    assert_close(gap, TWO_LAYER.layer_gap if order == "independent" else 0.0, 1e-6)
    assert TWO_LAYER.layer_gap > 0.1
    if order != "independent":
        kl, se = kl_to_posterior(two_layer, guide, xs, TWO_LAYER.log_px(xs))
        assert (kl + 4 * se < 1e-4).all()


def test_naming_the_latents_leaves_a_frozen_model_frozen():
    model = PPCA(GOLDEN_1.weight, GOLDEN_1.mu, 0.5).requires_grad_(False)
    latents(model, X_1[None])
    assert not any(p.requires_grad for p in model.parameters())
