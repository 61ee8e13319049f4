"""Inference as a Markov chain away from the data: who sees whom, exact where the model is a chain, Burda's nets."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import TWO_LAYER, assert_close, inverse
from pyro import poutine
from torch import nn

from dlvm.distributions import DiagonalNormal, FullRankNormal, positive
from dlvm.guides import Chain, FullRank, Latent, latents
from dlvm.inference import IWAE, SVI, DReG, check, log_weights
from dlvm.models import burda
from dlvm.nets import MLP


def three(x):
    with pyro.plate("data", len(x)):
        z3 = pyro.sample("z3", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        z2 = pyro.sample("z2", dist.Gamma(2.0, z3.exp().expand(*z3.shape[:-1], 2)).to_event(1))
        z1 = pyro.sample("z1", dist.Normal(z2[..., :1].expand(*z2.shape[:-1], 3), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z1, 1.0).to_event(1), obs=x)


def two_layer(x):
    with pyro.plate("data", len(x)):
        z2 = pyro.sample("z2", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        z1 = pyro.sample("z1", dist.Normal(z2 @ TWO_LAYER.upper.T, TWO_LAYER.s1.sqrt()).to_event(1))
        pyro.sample("x", dist.Normal(z1 @ TWO_LAYER.lower.T, TWO_LAYER.s2.sqrt()).to_event(1), obs=x)


X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


def mean_of(guide, name, x, given):
    base = poutine.trace(poutine.condition(guide, given)).get_trace(x).nodes[name]["fn"]
    return getattr(base, "base_dist", base).mean


def test_a_site_sees_the_one_before_it_and_nothing_else():
    guide = Chain(latents(three, X), MLP(3, 8))
    assert guide.names == ("z1", "z2", "z3")
    z1, z2 = torch.randn(5, 3), torch.rand(5, 2) + 0.1
    given = {"z1": z1, "z2": z2}
    assert_close(mean_of(guide, "z2", X, given), mean_of(guide, "z2", X + 1, given), 0.0)
    assert not torch.allclose(mean_of(guide, "z2", X, given), mean_of(guide, "z2", X, {"z1": z1 + 1}), atol=1e-4)
    moved = {"z1": z1 + 1, "z2": z2}
    assert_close(mean_of(guide, "z3", X, given), mean_of(guide, "z3", X + 1, moved), 0.0)
    assert not torch.allclose(mean_of(guide, "z3", X, given), mean_of(guide, "z3", X, {"z2": z2 + 1}), atol=1e-4)
    assert not torch.allclose(mean_of(guide, "z1", X, {}), mean_of(guide, "z1", X + 1, {}), atol=1e-4)


def set_full_rank(posterior, weight, loc, cov):
    factor = torch.linalg.cholesky(cov)
    rows, columns = torch.tril_indices(len(cov), len(cov), -1)
    with torch.no_grad():
        posterior.head.weight.zero_()
        posterior.head.weight[: len(weight)] = weight
        posterior.head.bias.copy_(torch.cat([loc, inverse(positive, factor.diagonal()), factor[rows, columns]]))


def test_it_holds_the_posterior_of_two_layers(float64):
    """p(z2 | z1, x) = p(z2 | z1): every weight is p(x), and x is not missed."""
    x = torch.randn(6, 4)
    guide = Chain(latents(two_layer, x), MLP(4, activation=nn.Identity), FullRankNormal, hidden=())
    head, conditional = TWO_LAYER.bottom_up(torch.zeros(4))
    weight = torch.stack([TWO_LAYER.bottom_up(e)[0].loc for e in torch.eye(4)], -1)
    set_full_rank(guide.posteriors[0], weight, head.loc, head.cov)
    set_full_rank(guide.posteriors[1], conditional.weight, conditional.loc, conditional.cov)
    assert_close(log_weights(two_layer, guide, x, num_particles=3), TWO_LAYER.log_px(x).expand(3, -1), 1e-9)


def count(*sizes):
    """Numbers in fully connected layers of these sizes."""
    return sum((a + 1) * b for a, b in zip(sizes[:-1], sizes[1:], strict=True))


@pytest.mark.parametrize("hidden", [{"z2": (100, 100)}, (100, 100)], ids=["by site", "for all"])
def test_the_nets_of_burda_two_layers(hidden):
    """q1 784-200-200-100 and q2 100-100-100-50, each with a location and a scale."""
    spec = {"z2": Latent(torch.Size([50])), "z1": Latent(torch.Size([100]))}
    guide = Chain(spec, MLP(784, 200, 200, activation=nn.Tanh), hidden=hidden)
    assert sum(p.numel() for p in guide.parameters()) == count(784, 200, 200, 200) + count(100, 100, 100, 100)
    between = guide.posteriors[1].net
    assert isinstance(between.activation, nn.Tanh) and isinstance(between.output, nn.Tanh)
    usual = Chain(spec, MLP(784, 200, 200, activation=nn.Tanh))
    assert sum(p.numel() for p in usual.parameters()) == count(784, 200, 200, 200) + count(100, 200, 100)


def test_widths_may_differ_by_site_in_every_guide():
    spec = latents(three, X)
    guide = FullRank(spec, MLP(3, 8), hidden={"z3": (5, 6), "z1": ()})
    nets = dict(zip(guide.names, (posterior.net for posterior in guide.posteriors), strict=True))
    assert {name: [layer.out_features for layer in net.layers] for name, net in nets.items()} == {
        "z3": [5, 6],
        "z2": [8],
        "z1": [],
    }
    with pytest.raises(ValueError, match=r"hidden names \['z4'\], but the latent sites are \['z3', 'z2', 'z1'\]"):
        Chain(spec, MLP(3, 8), hidden={"z4": (3,)})


@pytest.mark.parametrize("family", [DiagonalNormal, FullRankNormal])
def test_every_parameter_moves_and_every_tool_takes_it(family):
    model, x = burda(9, sizes=(4, 3), hidden=(8, 7)), (torch.rand(5, 9) < 0.5).float()
    guide = Chain(latents(model, x), MLP(9, 8, activation=nn.Tanh), family, hidden={"z2": (7, 7)})
    assert set(check(model, guide, IWAE(3, DReG()), x)) == {"z2", "z1"}
    before = [p.detach().clone() for p in guide.parameters()]
    svi = SVI(model, guide, partial(torch.optim.Adam, lr=1e-2), IWAE(3, DReG()), engine="eager")
    for _ in range(2):
        svi.step(x)
    assert not any(torch.equal(a, b) for a, b in zip(before, guide.parameters(), strict=True))
