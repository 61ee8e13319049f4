"""IWAE and Renyi bounds: their values, their rate, their order, and what they are in special cases."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from oracles import GOLDEN_1, X_1, Q, assert_close, chi2, iwae, renyi_bound
from pyro.infer import RenyiELBO, Trace_ELBO

from dlvm.inference import IWAE, Bound, Objective, Renyi, log_weights

LOG_PX = -8.34168339


def joint(z):
    return GOLDEN_1.log_joint(X_1, z)


@pytest.fixture
def programs(pair):
    return pair(GOLDEN_1, lambda x: Q)


def seeded_loss(objective, *args):
    pyro.set_rng_seed(5)
    return objective.loss(*args)


@pytest.mark.parametrize("num_particles", [1, 2, 5, 20])
def test_iwae_is_the_quadrature_at_every_number_of_particles(programs, num_particles):
    """The mean over n data that are all x, within 4 standard errors."""
    n = 40_000
    with torch.no_grad():
        bounds = IWAE(num_particles).bound(log_weights(*programs, X_1.expand(n, -1), num_particles=num_particles))
    se = bounds.std() / math.sqrt(n)
    assert bounds.shape == (n,)
    assert abs(bounds.mean() - iwae(joint, Q, num_particles)) < 4 * se < 0.03
    assert bounds.mean() + 4 * se < LOG_PX


def test_the_gap_of_iwae_falls_as_chi2_over_twice_the_particles(programs):
    """2K (log p - L_K) -> chi2(p || q), to 3 standard errors and what the next order leaves at K = 100.

    E[1 - mean w / p(x)] = 0 is added to each term, which takes away nearly all of its variance.
    """
    k, n, expected = 100, 20_000, chi2(GOLDEN_1.posterior(X_1), Q)
    with torch.no_grad():
        parts = [log_weights(*programs, X_1.expand(2000, -1), num_particles=k) for _ in range(n // 2000)]
    log_ratio = IWAE(k).bound(torch.cat(parts, dim=1)) - GOLDEN_1.log_px(X_1)
    terms = 2 * k * (torch.expm1(log_ratio) - log_ratio)
    se = terms.std() / math.sqrt(n)
    assert se < 0.01
    assert abs(terms.mean() - 2 * k * (GOLDEN_1.log_px(X_1) - iwae(joint, Q, k))) < 4 * se
    assert abs(terms.mean() - expected) < 3 * se + 0.02


def test_renyi_approaches_its_closed_form(programs):
    """With 10^5 particles the bias is below 10^-5; the error of 16 estimates stays within 4 standard errors."""
    with torch.no_grad():
        log_w = log_weights(*programs, X_1.expand(16, -1), num_particles=10**5)
    for alpha in (0.9, 0.5, 0.0, -0.5):
        bounds = Renyi(alpha, 10**5).bound(log_w)
        expected = renyi_bound(GOLDEN_1.log_px(X_1), Q, GOLDEN_1.posterior(X_1), alpha)
        assert abs(bounds.mean() - expected) < 4 * bounds.std() / 4 < 0.01


def test_more_particles_never_lower_the_bound(programs):
    """For any weights, L_K is at least the mean of L_{K-1} over the K ways of leaving one out (Jensen)."""
    log_w = log_weights(*programs, X_1.expand(500, -1), num_particles=6)
    for k in range(2, 7):
        part = log_w[:k]
        left_out = torch.stack([torch.cat([part[:j], part[j + 1 :]]) for j in range(k)])
        below = torch.stack([IWAE(k - 1).bound(rest) for rest in left_out]).mean(0)
        assert (IWAE(k).bound(part) > below).all()


def test_renyi_never_rises_with_alpha(programs):
    log_w = log_weights(*programs, X_1.expand(500, -1), num_particles=6)
    bounds = torch.stack([Renyi(a, 6).bound(log_w) for a in (-3.0, -1.0, -0.5, 0.0, 0.3, 0.9, 0.999, 1.0)])
    assert (bounds[1:] < bounds[:-1]).all()
    assert_close(Renyi(1 - 1e-9, 6).bound(log_w), log_w.mean(0), 1e-5)
    assert_close(Renyi(-200.0, 6).bound(log_w), log_w.amax(0), 0.01)


def test_special_cases_meet_under_one_seed(programs):
    xs = torch.stack([X_1, -X_1])
    assert seeded_loss(Renyi(0.0, 7), *programs, xs) == seeded_loss(IWAE(7), *programs, xs)
    elbo = Trace_ELBO(num_particles=7, max_plate_nesting=1, vectorize_particles=True)
    assert_close(seeded_loss(Renyi(1.0, 7), *programs, xs), seeded_loss(elbo, *programs, xs), 1e-12)
    single = [seeded_loss(o, *programs, xs) for o in (IWAE(1), Renyi(0.5, 1), Renyi(1.0, 1), Trace_ELBO())]
    assert_close(single, [single[0]] * 4, 1e-12)


@pytest.mark.parametrize("alpha", [0.5, 0.0, -0.5])
def test_on_one_unscaled_datum_pyro_says_the_same(programs, alpha):
    theirs = RenyiELBO(alpha=alpha, num_particles=7, max_plate_nesting=1, vectorize_particles=True)
    assert_close(seeded_loss(Renyi(alpha, 7), *programs, X_1[None]), seeded_loss(theirs, *programs, X_1[None]), 1e-12)


@pytest.mark.parametrize("objective", [IWAE(9), Renyi(0.5, 9), Renyi(1.0, 9), Renyi(-2.0, 9)], ids=repr)
def test_every_bound_is_log_px_at_the_exact_posterior(pair, objective):
    xs = torch.stack([X_1, -X_1, 3 * X_1])
    loss = objective.loss(*pair(GOLDEN_1, GOLDEN_1.posterior), xs)
    assert_close(-loss, GOLDEN_1.log_px(xs).sum(), 1e-9)


@pytest.mark.parametrize("objective", [IWAE(3), Renyi(0.5, 3)], ids=repr)
def test_weights_of_any_size_neither_overflow_nor_vanish(objective):
    log_w = torch.tensor([[-1e4, 800.0, -3.0], [-1e4, 800.0, -3.0], [-1e4, 800.0, -3.0]])
    assert_close(objective.bound(log_w), log_w[0], 1e-3)


def test_impossible_particles_count_as_zero_weight():
    log_w = torch.tensor([[0.0], [-math.inf]])
    assert_close(IWAE(2).bound(log_w), [-math.log(2)], 1e-6)
    assert_close(Renyi(0.5, 2).bound(log_w), [-2 * math.log(2)], 1e-6)
    assert Renyi(1.0, 2).bound(log_w).item() == -math.inf


@pytest.mark.parametrize("alpha", [1.0001, 2.0, math.inf, -math.inf, math.nan])
def test_orders_that_need_not_exist_are_refused(alpha):
    with pytest.raises(ValueError, match="alpha must be finite and at most 1, got .*use 0 <= alpha <= 1"):
        Renyi(alpha)


@pytest.mark.parametrize("num_particles", [0, -3, 2.0, "5"])
def test_particles_are_counted_by_positive_integers(num_particles):
    for make in (IWAE, lambda k: Renyi(0.5, k)):
        with pytest.raises(ValueError, match="num_particles must be a positive integer, got"):
            make(num_particles)


def median(log_w):
    return log_w.median(0).values


def test_a_bound_of_ones_own_is_one_function(programs):
    class Median(Objective):
        def __init__(self, num_particles):
            super().__init__(Bound(median), num_particles)

    pyro.set_rng_seed(5)
    expected = -log_weights(*programs, X_1[None], num_particles=5).median()
    for objective in (Objective(Bound(median), 5), Median(5)):
        assert_close(seeded_loss(objective, *programs, X_1[None]), expected, 1e-12)
    for no_bound in (2, median, IWAE(2)):
        with pytest.raises(TypeError, match="bound must be a Bound, as Bound"):
            Objective(no_bound)
