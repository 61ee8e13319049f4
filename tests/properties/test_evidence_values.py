"""Evidence of data of any number, width, type and layout: what the closed form, a sum or an integral says."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given
from hypothesis import settings as running
from hypothesis import strategies as st
from torch import Tensor

import dlvm.evidence as room
from dlvm.models import PPCA

SEEDS = st.sampled_from([0, 1, 7, 2**31, 2**32 - 1])
COUNTS = st.integers(1, 7)
LAYOUTS = st.sampled_from(["plain", "strided", "expanded", "batches", "tuples", "uneven", "generator"])


def quick(examples: int):
    return running(max_examples=examples, deadline=None, derandomize=True, database=None)


@st.composite
def linear_gaussians(draw, widest: int = 3) -> tuple[PPCA, Tensor, Tensor]:
    """A model, data near what it draws, and their log p(x) in double precision; sizes differ by powers of ten."""
    dtype = draw(st.sampled_from([torch.float64, torch.float64, torch.float32]))
    x_dim, z_dim, n = draw(st.integers(1, 6)), draw(st.integers(1, widest)), draw(COUNTS)
    torch.manual_seed(draw(st.integers(0, 999)))
    most = 3 if dtype is torch.float64 else 1
    size, noise, far = (10.0 ** draw(st.integers(-most, most)) for _ in range(3))
    weight, loc = size * torch.randn(x_dim, z_dim), far * torch.randn(x_dim)
    model = PPCA(weight.to(dtype), loc.to(dtype), noise)
    x = (torch.randn(n, z_dim) @ weight.T + loc + noise * torch.randn(n, x_dim)).to(dtype)
    w, mean, scale = (t.detach().double() for t in (model.weight, model.loc, model.scale))
    covariance = w @ w.T + scale**2 * torch.eye(x_dim).double()
    known = torch.distributions.MultivariateNormal(mean, covariance, validate_args=False)
    return model, x, known.log_prob(x.double())


def laid(x: Tensor, layout: str):
    """The same data, otherwise laid out in memory or cut into batches."""
    half = (len(x) + 1) // 2
    if layout == "strided":
        return x.T.contiguous().T
    if layout == "expanded":
        return x[:1].expand(len(x), -1)
    if layout == "batches":
        return list(x.split(half))
    if layout == "tuples":
        return [(part,) for part in x.split(half)]
    if layout == "uneven":
        return [x[:1], x[1:]] if len(x) > 1 else [x]
    return (part for part in x.split(1)) if layout == "generator" else x


def rounding(model: PPCA, x: Tensor) -> float:
    """What cancels in (x - loc)^2 / scale^2, in nats."""
    squares = ((x - model.loc) / model.scale).detach().square().sum(-1).max().item()
    return 1e-6 + 100 * torch.finfo(x.dtype).eps * (1 + squares)


def exact_in_any_layout(case, layout, rows, seed):
    model, x, known = case
    found = room.exact(model, laid(x, layout), rows=rows, seed=seed)
    expected = known[:1].expand(len(x)) if layout == "expanded" else known
    torch.testing.assert_close(found.log_px, expected, atol=rounding(model, x), rtol=1e-6)
    assert found.complete and found.num_data == len(x) and found.mean_se == 0


def integrated(case, chunk, seed):
    """The closed form; or, where the posterior is a ridge that no grid resolves, a refusal."""
    model, x, known = case
    try:
        found = room.quadrature(model, x, chunk=chunk, seed=seed)
    except ValueError as error:
        assert "no window holds" in str(error) or "a grid of 801 points" in str(error)
        precision = torch.linalg.svdvals(model.weight.detach() / model.scale) ** 2 + 1
        assert model.weight.shape[1] == 2 and precision[0] / (precision[1:].min() if len(precision) > 1 else 1) > 1e4
        return
    torch.testing.assert_close(found.log_px, known, atol=1e-4 + rounding(model, x), rtol=1e-6)


@quick(40)
@given(linear_gaussians(), LAYOUTS, st.integers(1, 9), SEEDS)
def test_the_closed_form_is_the_same_however_data_are_laid_out(case, layout, rows, seed):
    exact_in_any_layout(case, layout, rows, seed)


@quick(12)
@given(linear_gaussians(widest=2), st.sampled_from([None, 999, 10**6]), SEEDS)
def test_an_integral_over_one_or_two_latents_is_the_closed_form(case, chunk, seed):
    integrated(case, chunk, seed)


@quick(15)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3), COUNTS, st.sampled_from([None, 1, 3, 100]), SEEDS)
def test_a_sum_over_classes_and_bits_is_that_of_their_table(classes, bits, width, n, chunk, seed):
    torch.manual_seed(100 * classes + 10 * bits + width)
    shares, odds = torch.rand(classes).double() + 0.1, 3 * torch.randn(bits).double()
    means = torch.randn(classes, width).double()
    shares = shares / shares.sum()
    weight = torch.randn(bits, width).double()
    x = torch.randn(n, width).double()

    def model(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(shares))
            b = pyro.sample("b", dist.Bernoulli(logits=odds).to_event(1))
            pyro.sample("x", dist.Normal(means[y] + b @ weight, 0.7).to_event(1), obs=x)

    table = torch.cartesian_prod(*[torch.arange(2.0).double()] * bits).reshape(-1, bits)
    log_prior = dist.Bernoulli(logits=odds).to_event(1).log_prob(table)
    each = dist.Normal((means[:, None] + table @ weight)[..., None, :], 0.7).to_event(1).log_prob(x)
    expected = (shares.log()[:, None, None] + log_prior[:, None] + each).flatten(0, 1).logsumexp(0)
    found = room.enumerated(model, x, chunk=chunk, seed=seed)
    torch.testing.assert_close(found.log_px, expected)
    assert found.num_samples == classes * 2**bits


@pytest.mark.slow
@quick(150)
@given(linear_gaussians(), LAYOUTS, st.integers(1, 9), SEEDS)
def test_the_closed_form_for_many_more(case, layout, rows, seed):
    exact_in_any_layout(case, layout, rows, seed)


@pytest.mark.slow
@quick(40)
@given(linear_gaussians(widest=2), st.sampled_from([None, 999, 10**6]), SEEDS)
def test_integrals_for_many_more(case, chunk, seed):
    integrated(case, chunk, seed)
