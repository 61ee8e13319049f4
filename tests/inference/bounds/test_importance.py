"""What a set of weights says of itself: mean, error, effective size, and the shape of its tail."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import GOLDEN_1, X_1, Gaussian, Q, assert_close, chi2
from pyro.ops.stats import fit_generalized_pareto

from dlvm.inference import log_weights
from dlvm.inference.bounds.importance import (
    effective_sample_size,
    log_mean_bias,
    log_mean_exp,
    pareto_k,
    relative_variance,
)

pytestmark = pytest.mark.usefixtures("float64")


def tail_of(log_w):
    """The excesses over a threshold that the fit is about: the largest min(K / 5, 3 sqrt K) weights."""
    count = int(min(0.2 * len(log_w), 3 * math.sqrt(len(log_w))))
    top = log_w.sort().values[-count - 1 :]
    w = (top - top[-1]).exp()
    return w[1:] - w[0]


@pytest.mark.parametrize("num_particles", [25, 60, 1000, 5001])
@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0])
def test_pareto_k_is_pyros_fit_of_every_column(num_particles, spread):
    log_w = spread * torch.randn(num_particles, 6) - 700
    k = pareto_k(log_w)
    assert k.shape == (6,)
    assert_close(k, [fit_generalized_pareto(tail_of(column))[0] for column in log_w.T], 1e-8)


@pytest.mark.parametrize("k", [-0.3, 0.2, 0.5, 0.8, 1.5])
def test_pareto_k_finds_the_shape_of_pareto_weights(k):
    """w = (u^-k - 1) / k for uniform u; the mean of 40 fits to tails of 600, each drawn towards 0.5 by 10 / 610.

    Within 4 standard errors and 0.01 for the bias of the fit itself.
    """
    u = torch.rand(40_000, 40)
    fitted = pareto_k(torch.log((u**-k - 1) / k))
    error = fitted.mean() - (600 * k + 10 * 0.5) / 610
    assert abs(error) < 4 * fitted.std() / math.sqrt(40) + 0.01


def test_pareto_k_tells_a_narrow_guide_from_a_wide_one():
    """A Gaussian q of variance r times the posterior's has weights of tail index 1 - r, none if r > 1."""
    z = torch.randn(100_000, 20)
    narrow, wide = (pareto_k(0.5 * z**2 * (1 - r)) for r in (0.1, 2.0))
    assert narrow.mean() > 0.7 and wide.max() < 0.5


@pytest.mark.parametrize("log_w", [torch.randn(24, 3), torch.zeros(1000, 3)], ids=["too few", "constant"])
def test_pareto_k_is_nan_where_there_is_no_tail(log_w):
    assert pareto_k(log_w).isnan().all()


def test_importance_does_not_change_with_the_size_of_the_weights():
    log_w = torch.randn(200, 5)
    for shift in (-5000.0, 5000.0):
        assert_close(log_mean_exp(log_w + shift), log_mean_exp(log_w) + shift, 1e-9)
        for statistic in (relative_variance, effective_sample_size, pareto_k):
            assert_close(statistic(log_w + shift), statistic(log_w), 1e-8)


def test_effective_sample_size_lies_between_one_and_all():
    log_w = torch.randn(50, 200) * torch.linspace(0, 20, 200)
    ess = effective_sample_size(log_w)
    assert (ess >= 1 - 1e-9).all() and (ess <= 50 + 1e-9).all()
    assert_close(ess[0], 50.0, 1e-9)
    one = torch.full((50, 1), -math.inf).index_fill(0, torch.tensor([7]), 3.0)
    assert_close(effective_sample_size(one), [1.0], 1e-12)
    two = torch.full((50, 1), -math.inf).index_fill(0, torch.tensor([7, 9]), 3.0)
    assert_close(effective_sample_size(two), [2.0], 1e-12)


def test_mean_and_variance_by_hand():
    w = torch.tensor([[1.0, 2.0], [3.0, 2.0]])
    assert_close(log_mean_exp(w.log()), [math.log(2.0), math.log(2.0)], 1e-12)
    assert_close(relative_variance(w.log()), [(2.0 / 2) / 4, 0.0], 1e-12)
    assert relative_variance(w[:1].log()).isnan().all()


def test_relative_variance_and_ess_estimate_chi2(pair):
    """K Var -> chi2(p || q) and ESS / K -> 1 / (1 + chi2); means of 100 estimates, 4 standard errors and O(1/K)."""
    k, n = 5000, 100
    with torch.no_grad():
        log_w = log_weights(*pair(GOLDEN_1, lambda x: Q), X_1.expand(n, -1), num_particles=k)
    expected = chi2(GOLDEN_1.posterior(X_1), Q)
    variance, share = k * relative_variance(log_w), effective_sample_size(log_w) / k
    assert abs(variance.mean() - expected) < 4 * variance.std() / 10 + 0.005
    assert abs(share.mean() - 1 / (1 + expected)) < 4 * share.std() / 10 + 0.002


def test_at_the_exact_posterior_every_particle_counts(pair):
    exact = pair(GOLDEN_1, lambda x: Gaussian(*GOLDEN_1.posterior(x)))
    log_w = log_weights(*exact, torch.stack([X_1, -X_1]), num_particles=64)
    assert_close(effective_sample_size(log_w), [64.0, 64.0], 1e-9)
    assert_close(relative_variance(log_w), [0.0, 0.0], 1e-20)


@pytest.mark.slow
@pytest.mark.parametrize("tail, low, high", [(0.8, 1.0, 2.0), (0.9, 0.7, 1.4)])
def test_the_bias_of_a_mean_of_pareto_weights_is_told_where_half_the_variance_sees_a_small_part(tail, low, high):
    """w = (1 - k) u^-k has mean 1, so that a mean log of mean weights is the bias; 20 000 times 200 weights."""
    log_w = math.log(1 - tail) - tail * torch.rand(200, 20_000).log()
    bias, variance = -log_mean_exp(log_w).mean(), relative_variance(log_w)
    assert low < log_mean_bias(variance, pareto_k(log_w)).mean() / bias < high
    assert (variance / 2).mean() / bias < 0.2


def test_the_bias_of_light_or_unknown_tails_is_half_the_variance():
    variance, khat = torch.tensor([0.1, 0.1, 0.1, 0.1, 0.1]), torch.tensor([-1.0, 0.7, math.nan, 0.75, 5.0])
    assert_close(log_mean_bias(variance, khat), [0.05, 0.05, 0.05, 0.15, 0.95], 1e-6)
