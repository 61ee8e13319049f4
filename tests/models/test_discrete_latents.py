"""Bits, classes, and bits beside real numbers: densities by hand, log p(x) and gradients by enumeration."""

from __future__ import annotations

import math
from itertools import product

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close
from oracles.forcing import Lattice, gradient
from pyro import poutine
from torch import nn

from dlvm.distributions import Bernoulli, ConstantScaleNormal
from dlvm.evidence import enumerated
from dlvm.guides import Chain, Diagonal, latents
from dlvm.inference import ELBO, IWAE, NVIL, VIMCO, ScoreFunction
from dlvm.models import CategoricalVAE, MixedVAE, SigmoidBeliefNetwork
from dlvm.nets import MLP

pytestmark = pytest.mark.usefixtures("float64")
BITS = {n: torch.tensor(list(product((0.0, 1.0), repeat=n)), dtype=torch.float64) for n in (1, 2, 3)}
SCORES = {
    "plain": ScoreFunction,
    "NVIL": lambda: ScoreFunction(NVIL(nn.Linear(3, 1))),
    "VIMCO": VIMCO,
    "everywhere": lambda: VIMCO(everywhere=True),
}


def of_bits():
    """Two bits below one, linear; three of data."""
    model = SigmoidBeliefNetwork(3, (2, 1))
    return model, Chain(latents(model, X), MLP(3), hidden=()), {"z1": BITS[2], "z2": BITS[1]}, {}


def of_classes():
    """Two variables of three classes."""
    model = CategoricalVAE(2, 3, Bernoulli(MLP(6, 3)), learned=True)
    values = torch.stack([torch.eye(3)[list(pair)] for pair in product(range(3), repeat=2)])
    return model, Diagonal(latents(model, X), MLP(3, 4)), {"z": values}, {}


def of_both():
    """A bit and a number."""
    model = MixedVAE(1, 1, Bernoulli(MLP(2, 3)))
    return model, Diagonal(latents(model, X), MLP(3, 4)), {"b": BITS[1]}, {"z": 1}


X = torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64)
PAIRS = {"bits": of_bits, "classes": of_classes, "both": of_both}


def lattice(name: str) -> tuple[Lattice, list]:
    pyro.set_rng_seed(1)
    model, guide, values, noise = PAIRS[name]()
    for p in (*model.parameters(), *guide.parameters()):
        nn.init.normal_(p, std=0.4)
    return Lattice(model, guide, X, values, noise, nodes=9), [*model.parameters(), *guide.parameters()]


def weight(log_w):
    """w of the one particle, whose mean is p(x)."""
    return log_w[0].exp()


@pytest.mark.parametrize("estimator", SCORES)
@pytest.mark.parametrize("objective", [pytest.param(ELBO, marks=pytest.mark.slow), IWAE])
@pytest.mark.parametrize("name", PAIRS)
def test_the_mean_gradient_is_that_of_the_bound(name, objective, estimator):
    """Over all draws of two particles: bits by the score, the number through its draws or by the score as well."""
    found, parameters = lattice(name)
    made = objective(num_particles=2, estimator=SCORES[estimator]())
    expected = gradient(found.expected(made.bound, 2), parameters)
    assert expected.abs().max() > 0.05
    by_nodes = name == "both" and estimator == "everywhere"  # a score and a derivative agree as far as nine nodes do
    largest = expected.abs().max()
    assert_close(found.expected_gradient(made, parameters) / largest, expected / largest, 5e-3 if by_nodes else 1e-10)


@pytest.mark.parametrize("name", ["bits", "classes"])
def test_log_px_is_the_sum_over_all_values_and_no_bound_exceeds_it(name):
    found, _ = lattice(name)
    every = BITS[3]
    exact = enumerated(found.model, every).log_px
    assert_close(exact.exp().sum(), 1.0, 1e-9)
    assert_close(enumerated(found.model, X).log_px.sum(), found.expected(weight, 1).log(), 1e-9)
    bounds = [found.expected(IWAE(k).bound, k).item() for k in (1, 2)]
    assert bounds[0] < bounds[1] < enumerated(found.model, X).log_px.item()


def test_a_belief_network_by_hand():
    """Top bits from their logits, each layer below by tanh, tanh and a map, as wide as the layer above."""
    pyro.set_rng_seed(0)
    model = SigmoidBeliefNetwork(3, (4, 2), nonlinear=True, mean=torch.tensor([0.2, 0.5, 0.9]))
    nn.init.normal_(model.prior.logits)
    sizes = [tuple(layer.weight.shape) for layer in model.conditionals[0].net.layers]
    assert sizes == [(2, 2), (2, 2), (4, 2)]
    assert [tuple(layer.weight.shape) for layer in model.likelihood.net.layers] == [(4, 4), (4, 4), (3, 4)]
    assert_close(model.likelihood.net.bias.sigmoid(), [0.2, 0.5, 0.9], 1e-6)
    trace = poutine.trace(model).get_trace(X)
    z2, z1 = trace.nodes["z2"]["value"], trace.nodes["z1"]["value"]

    def below(net, h):
        for layer in net.layers[:-1]:
            h = torch.tanh(h @ layer.weight.T + layer.bias)
        return h @ net.layers[-1].weight.T + net.layers[-1].bias

    def log_p(logits, value):
        return -nn.functional.binary_cross_entropy_with_logits(logits, value, reduction="sum")

    by_hand = log_p(model.prior.logits.expand(1, -1), z2) + log_p(below(model.conditionals[0].net, z2), z1)
    assert_close(trace.log_prob_sum(), by_hand + log_p(below(model.likelihood.net, z1), X), 1e-10)
    assert model(n=5).shape == (5, 3) and set(model(n=50).unique().tolist()) <= {0.0, 1.0}


def test_bits_and_numbers_under_a_linear_gaussian_are_a_mixture():
    """p(x) = sum_b p(b) N(x; W_b b + loc, W_z W_z^T + scale^2), by quadrature over z and by draws of the guide."""
    pyro.set_rng_seed(3)
    linear = nn.Linear(3, 3)
    model = MixedVAE(2, 1, ConstantScaleNormal(Both(linear)))
    nn.init.normal_(model.bits.logits)
    x = torch.tensor([[0.3, -0.8, 1.1]])
    likelihood = model.likelihood(torch.zeros(1, 2), torch.zeros(1, 1))
    noise = torch.diag(likelihood.variance[0])
    of_b, of_z = linear.weight[:, :2], linear.weight[:, 2:]
    parts = dist.MultivariateNormal(BITS[2] @ of_b.T + linear.bias, of_z @ of_z.T + noise).log_prob(x)
    weights = dist.Bernoulli(logits=model.bits.logits).log_prob(BITS[2]).sum(-1)
    guide = Diagonal(latents(model, x), MLP(3, 4))
    found = Lattice(model, guide, x, {"b": BITS[2]}, {"z": 1}, nodes=60)
    assert_close(found.expected(weight, 1).log(), (weights + parts).logsumexp(0), 1e-5)
    assert found.expected(ELBO(1).bound, 1) < (weights + parts).logsumexp(0)


class Both(nn.Module):
    """A net of bits and numbers side by side."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net, self.out_features, self.in_features = net, net.out_features, net.in_features

    def forward(self, b, z):
        return self.net(torch.cat([b, z], -1))


def test_classes_are_one_hot_and_equally_likely_until_learned():
    model = CategoricalVAE(4, 5, Bernoulli(MLP(20, 3)))
    node = poutine.trace(model).get_trace(n=6).nodes["z"]
    assert node["value"].shape == (6, 4, 5) and (node["value"].sum(-1) == 1).all()
    assert_close(node["fn"].log_prob(node["value"]), [-4 * math.log(5)] * 6, 1e-10)
    assert not list(model.prior.parameters())
    assert [p.shape for p in CategoricalVAE(4, 5, Bernoulli(MLP(20, 3)), learned=True).prior.parameters()] == [(4, 5)]
