"""Values of the bounds against closed forms, quadrature and each other; orders that hold for any weights."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from oracles import (
    GOLDEN_1,
    GOLDEN_SBN,
    X_1,
    X_SBN,
    Q,
    assert_close,
    chi2,
    expected_bound,
    iwae,
    renyi,
    renyi_bound,
)

from dlvm.inference import (
    CIWAE,
    CUBO,
    ELBO,
    IWAE,
    MIWAE,
    PIWAE,
    RWS,
    TVO,
    Renyi,
    Separate,
    VRMax,
    WakeSleep,
    log_weights,
)

pytestmark = pytest.mark.usefixtures("float64")
LOG_PX = GOLDEN_1.log_px(X_1)
POSTERIOR = GOLDEN_1.posterior(X_1)
_KEPT: dict[str, torch.Tensor] = {}


def weights(k: int, batch: int = 2000, spread: float = 1.5) -> torch.Tensor:
    """Any weights: normal logarithms, some of them far apart."""
    return spread * torch.randn(k, batch, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def draws(pair) -> torch.Tensor:
    """A million log-weights of the golden guide that misses."""
    if "draws" not in _KEPT:
        pyro.set_rng_seed(4)
        _KEPT["draws"] = log_weights(*pair(GOLDEN_1, lambda x: Q), X_1.expand(1_000_000, -1))[0]
    return _KEPT["draws"]


def mean(objective, log_w: torch.Tensor) -> tuple[float, float]:
    """The expected bound and its standard error, from independent log-weights."""
    k = objective.num_particles
    values = objective.bound(log_w[: len(log_w) // k * k].view(k, -1))
    return values.mean().item(), (values.std(correction=0) / math.sqrt(len(values))).item()


def close(found: tuple[float, float], expected, most: float = 4.0) -> None:
    assert abs(found[0] - float(expected)) < most * found[1], (found, float(expected))


@pytest.mark.parametrize("k, golden", [(1, -8.8743), (2, -8.54908), (5, -8.40907), (10, -8.37327), (50, -8.34775)])
def test_iwae_is_the_quadrature_and_closes_the_gap_at_its_rate(draws, k, golden):
    exact = iwae(lambda z: GOLDEN_1.log_joint(X_1, z), Q, k)
    assert abs(exact - golden) < 3e-3
    close(mean(IWAE(k), draws), exact)
    if k == 50:
        assert_close(2 * k * (LOG_PX - exact), chi2(POSTERIOR, Q), 0.03)
        assert_close(chi2(POSTERIOR, Q), 0.588715, 1e-6)


def test_the_average_weight_is_the_evidence_at_every_k(draws):
    for k in (1, 4, 100):
        average = (draws.view(-1, k) - LOG_PX).exp().mean(1)
        assert abs(average.mean() - 1) < 4 * average.std() / math.sqrt(len(average))
        estimate = average.log().var() * k
        if k == 100:
            assert_close(estimate, chi2(POSTERIOR, Q), 0.02)


@pytest.mark.parametrize("alpha, golden", [(1.0, -8.8742884), (0.5, -8.53815), (0.0, -8.34168), (-0.5, -8.20828)])
def test_renyi_of_many_particles_is_the_closed_form(draws, alpha, golden):
    """alpha = 1 is the ELBO, 0 is log p(x), below 0 the bound is above it."""
    exact = renyi_bound(LOG_PX, Q, POSTERIOR, alpha)
    assert_close(exact, golden, 1e-5)
    found, _ = mean(Renyi(alpha, 1_000_000), draws)
    assert abs(found - exact) < 4e-3
    close(mean(Renyi(alpha, 1000), draws), exact + (0 if alpha == 1 else _bias(alpha, 1000)), 5.0)
    assert (exact > LOG_PX + 0.1) == (alpha < 0)


def _bias(alpha: float, k: int) -> float:
    """Of the estimate, to first order: -Var(w^(1 - alpha)) / (2 K (1 - alpha) (E w^(1 - alpha))^2)."""
    first, second = ((1 - a) * -renyi(Q, POSTERIOR, a) for a in (alpha, 2 * alpha - 1))
    return -float(torch.expm1(second - 2 * first)) / (2 * k * (1 - alpha))


@pytest.mark.parametrize("order", [1.0, 1.5])
def test_cubo_approaches_its_closed_form_from_below(draws, order):
    """log p(x) + (n - 1) / n D_n(p || q): 1/n log E_q w^n with the roles swapped."""
    exact = LOG_PX + (order - 1) / order * (renyi(POSTERIOR, Q, order) if order > 1 else 0)
    found = [mean(CUBO(order, k), draws) for k in (1, 2, 5, 10, 100, 1000)]
    assert all(a[0] < b[0] for a, b in zip(found, found[1:], strict=False))
    assert all(value < exact + 4 * se for value, se in found)
    assert abs(mean(CUBO(order, 1_000_000), draws)[0] - exact) < 5e-3
    assert (exact > LOG_PX + 0.05) == (order > 1)


def test_cubo_of_order_two_is_the_chi_square():
    exact = LOG_PX + 0.5 * torch.log1p(chi2(POSTERIOR, Q))
    assert_close(LOG_PX + 0.5 * renyi(POSTERIOR, Q, 2.0), exact, 1e-10)
    log_w = LOG_PX + weights(3)
    assert_close(CUBO(2, 3).bound(log_w), 0.5 * ((2 * log_w).exp().mean(0)).log(), 1e-10)


def test_bounds_of_any_weights_are_in_order():
    log_w = weights(6)
    elbo, tight, largest = log_w.mean(0), (log_w.logsumexp(0) - math.log(6)), log_w.amax(0)
    chain = [ELBO(6), Renyi(0.9, 6), Renyi(0.2, 6), IWAE(6), Renyi(-1.0, 6), Renyi(-9.0, 6), VRMax(6)]
    values = [objective.bound(log_w) for objective in chain]
    assert all((a <= b + 1e-12).all() and (a < b).any() for a, b in zip(values, values[1:], strict=False))
    assert_close(values[0], elbo), assert_close(values[3], tight), assert_close(values[-1], largest)
    assert_close(Renyi(-1.0, 6).bound(log_w), CUBO(2.0, 6).bound(log_w))
    assert_close(Renyi(-5000.0, 6).bound(log_w), largest, 1e-3)
    for between in (MIWAE(2, 3), MIWAE(3, 2), CIWAE(0.4, 6), TVO(6, 4), TVO(6, 2, 0.7)):
        assert ((elbo <= between.bound(log_w)) & (between.bound(log_w) <= tight)).all()


def test_ends_of_the_families():
    log_w = weights(6)
    same = [
        (MIWAE(1, 6), IWAE(6)),
        (MIWAE(6, 1), ELBO(6)),
        (CIWAE(0.0, 6), IWAE(6)),
        (CIWAE(1.0, 6), ELBO(6)),
        (TVO(6, 1), ELBO(6)),
        (Renyi(0.0, 6), IWAE(6)),
        (Renyi(1.0, 6), ELBO(6)),
        (CUBO(1, 6), IWAE(6)),
        (PIWAE(2, 3), IWAE(6)),
        (RWS(6), IWAE(6)),
        (WakeSleep(6), ELBO(6)),
        (Separate(IWAE(6), MIWAE(3, 2)), IWAE(6)),
    ]
    for a, b in same:
        assert_close(a.bound(log_w), b.bound(log_w), 1e-12)
    assert_close(MIWAE(2, 3).bound(log_w), (IWAE(3).bound(log_w[:3]) + IWAE(3).bound(log_w[3:])) / 2, 1e-12)


def test_tvo_is_the_left_sum_that_its_docstring_says():
    """By hand at K = 2, and ever nearer to L_K as intervals are added."""
    a, b, first = 0.3, -1.1, 0.2
    share = math.exp(first * a) / (math.exp(first * a) + math.exp(first * b))
    by_hand = first * (a + b) / 2 + (1 - first) * (share * a + (1 - share) * b)
    assert_close(TVO(2, 2, first).bound(torch.tensor([a, b])), by_hand, 1e-12)
    log_w = weights(6)
    gaps = [(IWAE(6).bound(log_w) - TVO(6, j, 1e-3).bound(log_w)).mean().item() for j in (1, 5, 20, 80, 1000)]
    assert all(a > b for a, b in zip(gaps, gaps[1:], strict=False)) and 0 < gaps[-1] < 0.01 * gaps[0]


def test_bounds_in_expectation_are_those_of_the_enumeration():
    """The golden SBN; a mixture of two bounds is the mixture of their expectations."""
    exact = {k: expected_bound(IWAE(k).bound, GOLDEN_SBN, X_SBN, k) for k in (1, 2, 3)}
    assert_close(exact[1], -2.14592267, 1e-8), assert_close(exact[3], -1.87354438, 1e-8)
    assert exact[1] < exact[2] < exact[3] < GOLDEN_SBN.log_px(X_SBN)
    assert_close(expected_bound(MIWAE(2, 2).bound, GOLDEN_SBN, X_SBN, 4), exact[2], 1e-10)
    assert_close(expected_bound(CIWAE(0.25, 3).bound, GOLDEN_SBN, X_SBN, 3), 0.25 * exact[1] + 0.75 * exact[3], 1e-10)
    assert_close(expected_bound(TVO(3, 1).bound, GOLDEN_SBN, X_SBN, 3), exact[1], 1e-10)
    assert expected_bound(VRMax(3).bound, GOLDEN_SBN, X_SBN, 3) > exact[3]
    assert expected_bound(CUBO(2, 3).bound, GOLDEN_SBN, X_SBN, 3) > exact[3]


@pytest.mark.parametrize(
    "objective, lower",
    [(ELBO(2), True), (IWAE(2), True), (Renyi(0.5), True), (Renyi(-0.5), False), (VRMax(3), False)]
    + [(CUBO(2, 3), False), (TVO(2), True), (MIWAE(2, 2), True), (CIWAE(0.5, 2), True)]
    + [(PIWAE(2, 2), True), (Separate(VRMax(2), IWAE(2)), False)],
    ids=repr,
)
def test_each_says_whether_it_stays_below(draws, objective, lower):
    """Lower bounds are below log p(x) by many standard errors; the others do not say that they are."""
    assert (objective.bound.side == "lower") == lower
    value, se = mean(objective, draws[:120_000])
    assert value < LOG_PX - 10 * se or not lower


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Renyi(2.0), r"alpha must be finite and at most 1, got 2.0.*CUBO for an upper bound"),
        (lambda: Renyi(-math.inf), r"alpha must be finite.*VRMax for minus infinity"),
        (lambda: CUBO(0.5), r"order must be finite and at least 1, got 0.5.*Renyi"),
        (lambda: CIWAE(1.2), r"beta must be between 0 and 1, got 1.2"),
        (lambda: TVO(3, 0), r"intervals must be at least 1"),
        (lambda: TVO(3, 2, 1.0), r"first between 0 and 1, got 2 and 1.0"),
        (lambda: MIWAE(0, 3), r"positive integers, got 0, 3"),
        (lambda: IWAE(0), r"num_particles must be a positive integer, got 0"),
        (lambda: ELBO(True), r"num_particles must be a positive integer, got True"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
