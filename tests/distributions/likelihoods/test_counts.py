"""Counts: to full precision at any size, against 40 digits; sums to 1; draws of the stated moments; starts, totals."""

from __future__ import annotations

import math

import mpmath as mp
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dlvm.distributions import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from dlvm.distributions.likelihoods.negative_binomial import NegativeBinomialCounts
from dlvm.distributions.likelihoods.poisson import PoissonCounts
from dlvm.distributions.likelihoods.zero_inflated import ZeroInflatedCounts

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)
COUNTS = st.one_of(st.integers(0, 40), st.floats(0, 9).map(lambda e: float(math.floor(10**e))))
SIZES = st.floats(-9, 9).map(lambda e: 10**e)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13}
HEADS = [Poisson, NegativeBinomial, ZeroInflatedNegativeBinomial]


def close(got: torch.Tensor, exact: float, dtype: torch.dtype) -> bool:
    return abs(got.item() - exact) <= TOLERANCE[dtype] * (1 + abs(exact))


def poisson(x, rate):
    with mp.workdps(40):
        x, rate = mp.mpf(x), mp.mpf(rate)
        return float(x * mp.log(rate) - rate - mp.loggamma(x + 1))


def negative_binomial(x, rate, dispersion):
    with mp.workdps(40):
        x, rate, r = mp.mpf(x), mp.mpf(rate), 1 / mp.mpf(dispersion)
        choose = mp.loggamma(x + r) - mp.loggamma(r) - mp.loggamma(x + 1)
        return float(choose - r * mp.log1p(rate / r) + x * mp.log(rate / (r + rate)))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_densities_are_right_at_any_count_rate_and_dispersion(dtype):
    @quick
    @given(COUNTS, st.one_of(SIZES, st.none()), st.floats(-8, 5), st.floats(-3, 3))
    def property(x, rate, log_dispersion, apart):
        rate = max(x, 1) * math.exp(apart) if rate is None else rate  # near the count, or anywhere
        x, rate, dispersion = (torch.tensor(float(v), dtype=dtype) for v in (x, rate, 10**log_dispersion))
        assert close(PoissonCounts(rate).log_prob(x), poisson(x.item(), rate.item()), dtype)
        rate.requires_grad_()
        log_p = NegativeBinomialCounts(rate, dispersion).log_prob(x)
        assert close(log_p, negative_binomial(x.item(), rate.item(), dispersion.item()), dtype)
        (slope,) = torch.autograd.grad(log_p, rate)
        if abs(apart) > 0.01:
            exact = (x.item() - rate.item()) / (rate.item() * (1 + dispersion.item() * rate.item()))
            assert slope.item() == pytest.approx(exact, rel=1e-3 if dtype is torch.float32 else 1e-9, abs=1e-30)

    property()


@pytest.mark.parametrize("gate", [-3.0, 0.0, 80.0])
def test_probabilities_sum_to_one_and_draws_have_the_moments(gate):
    torch.manual_seed(0)
    x = torch.arange(4000, dtype=torch.float64)
    rate, dispersion = torch.tensor([0.2, 3.0, 50.0]).double(), torch.tensor([2.0, 0.5, 1e-6]).double()
    count = NegativeBinomialCounts(rate, dispersion)
    for fn in (count, ZeroInflatedCounts(count, torch.tensor(gate).double()), PoissonCounts(rate)):
        log_p = fn.log_prob(x[:, None])
        assert torch.allclose(log_p.exp().sum(0), torch.ones(3).double(), atol=1e-9)
        p = log_p.exp()
        mean = (p * x[:, None]).sum(0)
        variance = (p * x[:, None].square()).sum(0) - mean.square()
        assert torch.allclose(fn.mean, mean, rtol=1e-7) and torch.allclose(fn.variance, variance, rtol=1e-5)
        drawn = fn.sample((20_000,))
        assert ((drawn.mean(0) - mean).abs() <= 5 * (variance / 20_000).sqrt() + 1e-12).all()


def test_zeros_that_are_no_counts_are_counted_once_at_any_gate():
    base = NegativeBinomialCounts(torch.tensor(50.0), torch.tensor(1e-6))
    for gate in (-200.0, 0.0, 200.0):
        fn = ZeroInflatedCounts(base, torch.tensor(gate))
        zero, some = fn.log_prob(torch.tensor(0.0)), fn.log_prob(torch.tensor(50.0))
        gates = -math.log1p(math.exp(-gate)) if gate > 0 else gate - math.log1p(math.exp(gate))
        p_zero = base.log_prob(torch.tensor(0.0)).double()
        exact = torch.logaddexp(torch.tensor(gates).double(), torch.tensor(gates - gate).double() + p_zero)
        assert torch.isclose(zero.double(), exact, rtol=1e-5) and some.isfinite()


@pytest.mark.parametrize("head", HEADS)
def test_training_starts_at_the_rates_of_the_columns_and_stays_finite(head):
    torch.manual_seed(0)
    mean = torch.tensor([1e-3, 2.0, 1e6])
    likelihood = head(nn.Linear(2, 8), 3, mean)
    p = likelihood(torch.zeros(7, 5, 2))
    assert p.batch_shape == (7, 5) and p.event_shape == (3,)
    at_zero = head(nn.Linear(2, 8, bias=False), 3, mean)(torch.zeros(5, 2)).mean
    assert torch.allclose(at_zero[0] / at_zero[0][0], mean / mean[0], rtol=0.2)
    z = torch.tensor([[1e30, -1e30], [-1e30, 1e30]], requires_grad=True)
    log_p = likelihood(z).log_prob(torch.tensor([[0.0, 3.0, 1e9], [1e9, 0.0, 0.0]]))
    log_p.sum().backward()
    assert log_p.isfinite().all() and all(q.grad.isfinite().all() for q in likelihood.parameters())


@pytest.mark.parametrize("head", HEADS)
def test_a_total_is_what_rates_add_up_to_at_the_start_and_scales_them(head):
    likelihood = head(nn.Linear(2, 8, bias=False), 3, torch.tensor([1.0, 2.0, 3.0]))
    total = torch.tensor([6.0, 6e3])
    rates = likelihood.rates(torch.zeros(2, 2), total=total)
    assert torch.allclose(rates.sum(-1), total) and torch.allclose(rates[1], 1e3 * rates[0])
    assert torch.allclose(
        likelihood.rates(torch.ones(2, 2), total=torch.full((2,), 6.0)), likelihood.rates(torch.ones(2, 2))
    )


def test_values_that_are_no_counts_are_refused_by_validation():
    p = NegativeBinomial(nn.Linear(2, 8), 3)(torch.zeros(5, 2))
    for wrong in (0.5, -1.0, math.nan):
        with pytest.raises(ValueError, match="within the support"):
            p.log_prob(torch.full((5, 3), wrong))
