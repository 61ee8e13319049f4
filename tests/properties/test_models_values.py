"""Models at any size, data of any shape and dtype: sums over data, Bayes' rule, closed forms in double precision."""

from __future__ import annotations

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given
from hypothesis import settings as running
from hypothesis import strategies as st
from pyro import poutine
from torch import Tensor

from dlvm.distributions import Bernoulli, Bits, ChainRule, DiagonalNormal, StandardNormal
from dlvm.models import HVAE, PPCA, VAE, BernoulliMixture, FullyVisible, TopDown, burda
from dlvm.nets import MLP, CausalTransformer, OrderedMADE, PixelCNN

MODELS = {
    "vae": VAE(2, Bernoulli(MLP(2, 6, 16))),
    "hierarchy": HVAE(StandardNormal(2), [DiagonalNormal(MLP(2, 5), 3)], Bernoulli(MLP(3, 6, 16))),
    "burda": burda(np.int64(16), (np.int64(2), 3), [4, 4]),
    "mixture": BernoulliMixture(np.int64(3), np.int64(16)),
    "made": FullyVisible(ChainRule(OrderedMADE(np.int64(16), (np.int64(8),), orders=3), Bits())),
    "pixel vae": VAE(2, ChainRule(PixelCNN((1, 4, 4), 1, 3, 2, 2, context=5), Bits(), MLP(2, 5))),
    "transformer": FullyVisible(ChainRule(CausalTransformer(16, 2, 1, 8), Bits())),
    "top down": TopDown(np.int64(16), maps=[[2, 4], (np.int64(3), 1)], width=3),
}
BINARY = [torch.float32, torch.float64, torch.bool, torch.uint8, torch.int64]


def quick(examples: int):
    return running(max_examples=examples, deadline=None, derandomize=True, database=None)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def log_joint(model, x: Tensor, latents: dict[str, Tensor]) -> Tensor:
    """Of each datum, in nats."""
    trace = poutine.trace(poutine.condition(model, latents)).get_trace(x)
    trace.compute_log_prob()
    return sum(trace.nodes[name]["log_prob"] for name in (*latents, "x"))


@pytest.mark.parametrize("name", MODELS)
def test_the_joint_density_of_data_is_each_datums_own_in_any_order_and_dtype(name):
    model = MODELS[name]

    @quick(8)
    @given(st.integers(1, 6), st.integers(0, 99), st.sampled_from(BINARY), st.booleans())
    def property(n, seed, dtype, strided):
        x = (numbers(n, 16, seed=seed) > 0).float()
        nodes = poutine.trace(model).get_trace(x).nodes
        z = {name: site["value"].detach() for name, site in nodes.items() if name.startswith("z")}
        together = log_joint(model, x, z)
        assert together.shape == (n,) and together.isfinite().all()
        same = x.to(dtype).T.contiguous().T if strided else x.to(dtype)
        torch.testing.assert_close(log_joint(model, same, z).float(), together, atol=1e-4, rtol=1e-4)
        order = torch.arange(n).flip(0)
        flipped = log_joint(model, x[order], {name: value[order] for name, value in z.items()})
        torch.testing.assert_close(flipped, together[order], atol=1e-4, rtol=1e-4)
        alone = [log_joint(model, x[i : i + 1], {k: v[i : i + 1] for k, v in z.items()}) for i in range(n)]
        torch.testing.assert_close(torch.cat(alone), together, atol=1e-4, rtol=1e-4)

    property()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(5, 1), (16,), (1, 1), (5, 15), (2, 5, 16), (5, 4, 4)])
def test_data_are_never_broadcast_to_the_likelihoods_width(name, shape):
    with pytest.raises(ValueError, match="x has events of shape .* under the likelihood, but the data have shape"):
        MODELS[name](torch.zeros(shape))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("value", [0.5, 2.0, -1.0, 255.0, math.nan, math.inf])
def test_no_value_that_is_no_bit_has_a_probability(name, value):
    x = torch.zeros(3, 16)
    x[1, 7] = value
    with pytest.raises(ValueError, match="within the support"):
        poutine.trace(MODELS[name]).get_trace(x).compute_log_prob()


@pytest.mark.parametrize("name", MODELS)
def test_any_number_of_data_can_be_drawn(name):
    for n in (1, 2, np.int64(7)):
        x = MODELS[name](n=n)
        assert x.shape == (n, 16) and set(x.unique().tolist()) <= {0.0, 1.0}


@st.composite
def linear(draw, ratio: float) -> tuple[PPCA, Tensor]:
    """A linear model whose weights are up to ``ratio`` times its noise, and data from it, in double precision."""
    x_dim, z_dim = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    scale, seed = draw(st.sampled_from([1e-4, 1e-2, 1.0, 1e3])), draw(st.integers(0, 99))
    size = draw(st.sampled_from([0.0, 1.0, ratio])) * scale
    weight, loc = size * numbers(x_dim, z_dim, seed=seed), scale * numbers(x_dim, seed=seed + 1)
    z, noise = numbers(4, z_dim, seed=seed + 2), numbers(4, x_dim, seed=seed + 3)
    return PPCA(weight, loc, scale), z @ weight.T + loc + scale * noise


def by_eigenvalues(model: PPCA, x: Tensor) -> Tensor:
    """log N(x; loc, W W' + scale^2 I) along the principal axes."""
    axes, sizes, _ = torch.linalg.svd(model.weight.detach())
    variance = model.scale.detach().square().repeat(len(x[0]))
    variance[: len(sizes)] += sizes.square()
    return dist.Normal(0.0, variance.sqrt()).log_prob((x - model.loc.detach()) @ axes).sum(-1)


@quick(40)
@given(linear(1e5))
def test_the_evidence_of_a_linear_model_is_that_of_its_covariances_axes(made):
    model, x = made
    torch.testing.assert_close(model.log_px(x), by_eigenvalues(model, x), atol=1e-6, rtol=1e-6)


@quick(40)
@given(linear(1e3))
def test_and_in_single_precision_as_far_as_the_data_have_digits(made):
    """Where covariances were subtracted, weights of a hundred times the noise made the evidence wrong by half."""
    model, x = made
    single = PPCA(model.weight.detach().float(), model.loc.detach().float(), model.scale.item())
    same = PPCA(single.weight.detach().double(), single.loc.detach().double(), single.scale.double())
    found, expected = single.log_px(x.float()), by_eigenvalues(same, x.float().double())
    assert ((found - expected).abs() <= 1e-2 * (1 + expected.abs())).all()
    posterior, exact = single.posterior(x.float()), same.posterior(x.float().double())
    assert (((posterior.loc - exact.loc) / exact.stddev).abs() <= 1e-2 * (1 + exact.loc.abs())).all()


@quick(40)
@given(linear(1e3), st.integers(0, 99))
def test_prior_times_likelihood_is_evidence_times_posterior_at_any_latent(made, seed):
    model, x = made
    posterior = model.posterior(x)
    z = posterior.loc.detach() + posterior.stddev.detach() * numbers(*posterior.loc.shape, seed=seed)
    bayes = log_joint(model, x, {"z": z}) - posterior.log_prob(z)
    torch.testing.assert_close(bayes, model.log_px(x), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize(
    "name, value", [("weight", math.nan), ("loc", math.inf), ("log_scale", 1e3), ("log_scale", -1e3)]
)
def test_a_model_that_training_broke_has_no_evidence(name, value):
    model = PPCA(torch.ones(3, 2), torch.zeros(3), 1.0)
    getattr(model, name).data.fill_(value)
    for ask in (model.log_px, model.posterior):
        with pytest.raises(ValueError, match="parameters must be finite, got NaN or inf"):
            ask(torch.zeros(2, 3))
        with pytest.raises(ValueError, match="x must be finite"):
            ask(torch.tensor([[0.0, math.nan, 0.0]]))


@quick(15)
@given(st.integers(1, 3), st.sampled_from([1e-3, 1.0, 1e3]), st.integers(0, 99))
def test_no_linear_model_nearby_explains_the_data_better_than_the_closed_form(z_dim, size, seed):
    x = size * (numbers(30, 4, seed=seed) @ numbers(4, 4, seed=seed + 1) + 5.0)
    best = PPCA.maximum_likelihood(x, z_dim)
    top = best.log_px(x).mean()
    again = PPCA.maximum_likelihood(x.flip(0), z_dim).log_px(x).mean()
    torch.testing.assert_close(again, top, atol=1e-8, rtol=1e-8)
    for step in (1e-3, 1e-1):
        weight = best.weight.detach() + step * size * numbers(4, z_dim, seed=seed + 2)
        assert PPCA(weight, best.loc.detach() + step * size, best.scale * (1 + step)).log_px(x).mean() < top
    single = PPCA.maximum_likelihood(x.float(), z_dim).log_px(x.float()).mean()
    torch.testing.assert_close(single.double(), top, atol=1e-2, rtol=1e-3)


def test_data_without_noise_outside_the_latent_directions_are_refused():
    x = numbers(20, 1) @ torch.ones(1, 4, dtype=torch.float64)
    x[:, 1:] = 0.0
    with pytest.raises(ValueError, match="x must vary outside 2 directions, got noise of variance 0"):
        PPCA.maximum_likelihood(x, 2)
