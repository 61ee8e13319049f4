"""The hierarchy's program: its sites, its joint density by hand, its draws, the sizes of the IWAE paper's nets."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from oracles import TWO_LAYER, assert_close, normal
from pyro import poutine
from torch import nn

from dlvm.distributions import Bernoulli, DiagonalNormal, StandardNormal
from dlvm.models import HVAE, burda
from dlvm.nets import MLP


def build() -> HVAE:
    conditionals = [DiagonalNormal(MLP(2, 5), 3), DiagonalNormal(MLP(3, 5), 4)]
    return HVAE(StandardNormal(2), conditionals, Bernoulli(MLP(4, 8, 6))).double()


def binary(*shape: int) -> torch.Tensor:
    return (torch.rand(shape) < 0.5).double()


class Linear(nn.Module):
    """N(W z, variance I)."""

    def __init__(self, weight, variance):
        super().__init__()
        self.weight, self.variance = weight, variance

    def forward(self, z):
        return dist.Normal(z @ self.weight.T, self.variance.sqrt()).to_event(1)


def test_sites_come_from_the_top_down():
    x = binary(5, 6)
    nodes = poutine.trace(build()).get_trace(x).nodes
    assert [n for n, s in nodes.items() if s["type"] == "sample" and n != "data"] == ["z3", "z2", "z1", "x"]
    assert [tuple(nodes[n]["value"].shape) for n in ("z3", "z2", "z1")] == [(5, 2), (5, 3), (5, 4)]
    assert nodes["x"]["is_observed"] and nodes["x"]["value"] is x


def test_joint_density_by_hand():
    model, x = build(), binary(5, 6)
    trace = poutine.trace(model).get_trace(x)
    z3, z2, z1 = (trace.nodes[name]["value"] for name in ("z3", "z2", "z1"))
    by_hand = dist.Normal(0.0, 1.0).log_prob(z3).sum()
    for conditional, above, below in ((model.conditionals[0], z3, z2), (model.conditionals[1], z2, z1)):
        loc, raw = conditional.head(conditional.net(above)).chunk(2, -1)
        by_hand = by_hand + dist.Normal(loc, (10 * (raw / 10).tanh()).exp()).log_prob(below).sum()
    logits = model.likelihood.net(z1)
    by_hand = by_hand - nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    assert_close(trace.log_prob_sum(), by_hand, 1e-10)


@pytest.mark.usefixtures("float64")
def test_a_linear_gaussian_hierarchy_is_the_oracle_and_draws_its_marginal():
    model = HVAE(StandardNormal(2), [Linear(TWO_LAYER.upper, TWO_LAYER.s1)], Linear(TWO_LAYER.lower, TWO_LAYER.s2))
    x = normal(TWO_LAYER.marginal).sample((7,))
    trace = poutine.trace(model).get_trace(x)
    z1, z2 = (trace.nodes[name]["value"] for name in ("z1", "z2"))
    assert_close(trace.log_prob_sum(), TWO_LAYER.log_joint(x, z1, z2).sum(), 1e-9)
    draws = model(n=40000)
    assert_close(torch.cov(draws.T), TWO_LAYER.marginal.cov, 0.08)


def test_without_data_it_draws():
    assert build()(n=7).shape == (7, 6) and build()().shape == (1, 6)


def test_the_two_layers_of_burda():
    """p(x|z1): 100-200-200-784, p(z1|z2): 50-100-100-(100 and 100), each with biases."""
    mean = torch.full((784,), 0.25)
    model = burda(mean=mean)
    decoder = 101 * 200 + 201 * 200 + 201 * 784
    middle = 51 * 100 + 101 * 100 + 2 * 101 * 100
    count = sum(p.numel() for p in model.parameters())
    assert count == decoder + middle == 253384
    nodes = poutine.trace(model).get_trace(n=3).nodes
    assert [tuple(nodes[n]["value"].shape) for n in ("z2", "z1", "x")] == [(3, 50), (3, 100), (3, 784)]
    assert_close(model.likelihood.net.bias.sigmoid(), mean, 1e-6)


def test_burda_with_other_sizes():
    one, three = burda(9, sizes=(4,), hidden=(5,)), burda(9, sizes=(4, 3, 2), hidden=(8, 7, 6))
    assert len(one.conditionals) == 0 and "z1" in poutine.trace(one).get_trace(n=2).nodes
    assert [c.net.in_features for c in three.conditionals] == [2, 3]
    assert [c.net.out_features for c in three.conditionals] == [6, 7] and three(n=2).shape == (2, 9)


def test_what_it_cannot_be_made_of_is_refused():
    with pytest.raises(ValueError, match=r"sizes=\(100, 50\), hidden=\(200, 100\)"):
        burda(hidden=(200,))
    with pytest.raises(TypeError, match=r"conditionals\[0\] must be a module .* got function"):
        HVAE(StandardNormal(2), [lambda z: z], Bernoulli(MLP(2, 3)))

    class Flat(nn.Module):
        def forward(self):
            return dist.Normal(torch.zeros(2), 1.0)

    with pytest.raises(ValueError, match=r"prior has batch shape \(2,\).*to_event"):
        HVAE(Flat(), [], Bernoulli(MLP(2, 3)))
