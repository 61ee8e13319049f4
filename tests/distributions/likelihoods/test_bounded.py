"""Classes, grey levels and shares: sums and integrals of 1, densities against 40 digits, in the farthest tails."""

from __future__ import annotations

import math

import mpmath as mp
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dlvm.distributions import Beta, CategoricalColumns, ContinuousBernoulli, DiscretisedLogistic, GreyLevels, Missing
from dlvm.distributions.likelihoods.greys import GreyCategories, RoundedLogistic
from dlvm.distributions.likelihoods.shares import PreciseBeta, TiltedUniform

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}
DTYPES = list(TOLERANCE)


def close(got: torch.Tensor, exact: float) -> bool:
    return abs(got.item() - exact) <= TOLERANCE[got.dtype] * (1 + abs(exact))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_rounded_logistic_is_right_in_the_farthest_tails(dtype):
    def exact(k, loc, scale, levels):
        with mp.workdps(60):
            loc, scale, width = mp.mpf(loc), mp.mpf(scale), mp.mpf(1) / (levels - 1)
            ends = [((k + s) * width - loc) / scale for s in (-mp.mpf(1) / 2, mp.mpf(1) / 2)]
            low, high = (1 / (1 + mp.exp(-end)) for end in ends)
            p = (mp.mpf(1) if k == levels - 1 else high) - (mp.mpf(0) if k == 0 else low)
            far = min(abs(end) for end in ends)
            return None if p == 0 or far > 100 else float(mp.log(p))

    @quick
    @given(st.sampled_from([2, 17, 256]), st.integers(0, 255), st.floats(-3, 4), st.floats(-3, 1))
    def property(levels, k, loc, log_scale):
        k = min(k, levels - 1)
        loc, scale = (torch.tensor(v, dtype=dtype) for v in (loc, 10**log_scale))
        got = RoundedLogistic(loc, scale, levels).log_prob(torch.tensor(k / (levels - 1), dtype=dtype))
        assert got.isfinite()
        if (wanted := exact(k, loc.item(), scale.item(), levels)) is not None:
            assert abs(got.item() - wanted) <= (2e-3 if dtype is torch.float32 else 1e-9) * (1 + abs(wanted))

    property()


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_probabilities_of_all_levels_sum_to_one_and_draws_have_their_mean(levels):
    torch.manual_seed(0)
    x = (torch.arange(levels).double() / (levels - 1))[:, None]
    loc, scale = torch.tensor([-0.5, 0.3, 2.0]).double(), torch.tensor([0.5, 0.02, 0.1]).double()
    for fn in (RoundedLogistic(loc, scale, levels), GreyCategories(torch.randn(3, levels).double())):
        p = fn.log_prob(x).exp()
        assert torch.allclose(p.sum(0), torch.ones(3).double(), atol=1e-10)
        assert torch.allclose(fn.mean, (p * x).sum(0), atol=1e-10)
        drawn = fn.sample((4000,))
        variance = (p * x.square()).sum(0) - fn.mean.square()
        assert ((drawn.mean(0) - fn.mean).abs() <= 5 * (variance.clamp_min(0) / 4000).sqrt() + 1e-9).all()
        assert fn.support.check(drawn).all() and not fn.support.check(drawn + 0.3 / (levels - 1)).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_continuous_bernoulli_is_right_at_any_logit(dtype):
    @quick
    @given(st.floats(0, 1), st.one_of(st.floats(-1, 1), st.floats(-1e5, 1e5), st.sampled_from([0.0, 0.1, -0.1])))
    def property(x, logit):
        x, logit = torch.tensor(x, dtype=dtype), torch.tensor(logit, dtype=dtype)
        with mp.workdps(60):
            exact_logit = mp.mpf(logit.item())
            mass = mp.mpf(0) if exact_logit == 0 else mp.log(mp.expm1(exact_logit) / exact_logit)
            exact = float(exact_logit * mp.mpf(x.item()) - mass)
        logit.requires_grad_()
        got = TiltedUniform(logit).log_prob(x)
        assert close(got, exact)
        (slope,) = torch.autograd.grad(got, logit)
        assert slope.item() == pytest.approx((x - TiltedUniform(logit).mean).item(), abs=1e-4)

    property()


@pytest.mark.parametrize("dtype", DTYPES)
def test_beta_is_right_at_any_shapes(dtype):
    @quick
    @given(st.floats(1e-6, 1 - 1e-6), st.floats(-4, 7), st.floats(-4, 7))
    def property(x, log_a, log_b):
        x, a, b = (torch.tensor(v, dtype=dtype) for v in (x, 10**log_a, 10**log_b))
        with mp.workdps(40):
            X, A, B = (mp.mpf(v.item()) for v in (x, a, b))
            exact = (A - 1) * mp.log(X) + (B - 1) * mp.log1p(-X) + mp.loggamma(A + B) - mp.loggamma(A) - mp.loggamma(B)
        assert close(PreciseBeta(a, b).log_prob(x), float(exact))

    property()


@pytest.mark.parametrize(
    "fn", [TiltedUniform(torch.tensor([-9.0, 0.0, 1e-4, 3.0])), PreciseBeta(*torch.rand(2, 4) * 3)]
)
def test_draws_of_shares_have_the_mean_and_lie_in_the_support(fn):
    torch.manual_seed(0)
    drawn = fn.sample((20_000,))
    assert fn.support.check(drawn).all()
    assert ((drawn.mean(0) - fn.mean).abs() < 5 * drawn.std(0) / 20_000**0.5 + 1e-6).all()


def test_columns_of_classes_are_categorical_column_by_column():
    torch.manual_seed(0)
    sizes, z = (2, 5, 3), torch.randn(4, 6, 2)
    likelihood = CategoricalColumns(nn.Linear(2, 8), sizes)
    p = likelihood(z)
    assert p.batch_shape == (4, 6) and p.event_shape == (3,)
    every = torch.cartesian_prod(*(torch.arange(float(size)) for size in sizes))
    total = p.log_prob(every[:, None, None, :]).logsumexp(0)
    assert torch.allclose(total, torch.zeros(4, 6), atol=1e-5)
    parts = likelihood.head(likelihood.net(z)).split(sizes, -1)
    x = p.sample()
    exact = sum(part.log_softmax(-1).gather(-1, x[..., d : d + 1].long())[..., 0] for d, part in enumerate(parts))
    assert torch.allclose(p.log_prob(x), exact, atol=1e-5)
    with pytest.raises(ValueError, match="within the support"):
        p.log_prob(torch.tensor([2.0, 0.0, 0.0]).expand(4, 6, 3))
    holed = x.clone()
    holed[..., 1] = math.nan
    there = sum(
        part.log_softmax(-1).gather(-1, x[..., d : d + 1].long())[..., 0] for d, part in enumerate(parts) if d != 1
    )
    assert torch.allclose(Missing(likelihood)(z).log_prob(holed), there, atol=1e-5)
    Missing(likelihood)(1e30 * z).log_prob(holed).sum().backward()
    assert all(q.grad.isfinite().all() for q in likelihood.parameters())


@pytest.mark.parametrize(
    "likelihood, value",
    [
        (GreyLevels(nn.Linear(2, 8), 3, 17), 3 / 16),
        (DiscretisedLogistic(nn.Linear(2, 8), 3, 17), 3 / 16),
        (ContinuousBernoulli(nn.Linear(2, 3)), 0.2),
        (Beta(nn.Linear(2, 8), 3), 0.2),
    ],
    ids=lambda v: type(v).__name__,
)
def test_heads_have_leading_dimensions_and_finite_gradients_at_extreme_contexts(likelihood, value):
    z = 1e6 * torch.randn(4, 6, 2)
    p = likelihood(z)
    assert p.batch_shape == (4, 6) and p.event_shape == (3,) and p.mean.isfinite().all()
    p.log_prob(torch.full((6, 3), value)).sum().backward()
    assert all(q.grad.isfinite().all() for q in likelihood.parameters())
    for wrong in (1.5, math.nan):
        with pytest.raises(ValueError, match="within the support"):
            p.log_prob(torch.full((6, 3), wrong))
