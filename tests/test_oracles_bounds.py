"""The oracles of bounds and integrals judged: every printed number, and every number by a second route."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import (
    ENERGIES,
    GOLDEN_1,
    LOG_Z_BOX,
    LOG_Z_CONFINED,
    X_1,
    Gaussian,
    Q,
    assert_close,
    best_gaussian,
    chi2,
    elbo_hermite,
    grid,
    iwae,
    iwae_asymptote,
    iwae_monte_carlo,
    kl,
    log_px_grid,
    log_px_hermite,
    log_z_simpson,
    normal,
    posterior_grid,
    renyi,
    renyi_bound,
)


def joint_1(z):
    return GOLDEN_1.log_joint(X_1, z)


@pytest.mark.parametrize(
    "alpha, bound, atol",
    [(1, -8.87428840, 5e-9), (0.5, -8.53815, 5e-6), (0, -8.34168, 5e-6), (-0.5, -8.20828, 5e-6)],
)
def test_renyi_goldens(alpha, bound, atol):
    assert_close(renyi_bound(GOLDEN_1.log_px(X_1), Q, GOLDEN_1.posterior(X_1), alpha), bound, atol)


def test_renyi_bound_by_grid_and_elbo_as_its_limit():
    z, log_cell = grid(points=600)
    for alpha in (0.5, -0.5, 0.9):
        log_w = joint_1(z) - Q.log_prob(z)
        by_grid = ((1 - alpha) * log_w + Q.log_prob(z) + log_cell).logsumexp(0) / (1 - alpha)
        assert_close(by_grid, renyi_bound(GOLDEN_1.log_px(X_1), Q, GOLDEN_1.posterior(X_1), alpha), 1e-8)
    assert_close(renyi(Q, GOLDEN_1.posterior(X_1), 1 - 1e-6), kl(Q, GOLDEN_1.posterior(X_1)), 1e-5)
    assert_close(GOLDEN_1.elbo(X_1, Q), -8.87428840, 5e-9)


def test_renyi_bound_decreases_in_alpha_and_crosses_log_px_at_zero():
    alphas = torch.linspace(-1, 1.2, 23).tolist()
    bounds = [renyi_bound(GOLDEN_1.log_px(X_1), Q, GOLDEN_1.posterior(X_1), a).item() for a in alphas]
    assert all(b <= a for a, b in zip(bounds, bounds[1:], strict=False))
    assert bounds[0] > GOLDEN_1.log_px(X_1) > bounds[-1]


def test_renyi_refuses_a_diverging_integral():
    with pytest.raises(ValueError, match=r"alpha=2\.0: D_alpha is infinite.*positive definite.*take alpha"):
        renyi(Q, GOLDEN_1.posterior(X_1), 2.0)


def test_chi2_golden_and_by_grid():
    posterior = GOLDEN_1.posterior(X_1)
    assert_close(chi2(posterior, Q), 0.588715, 5e-7)
    z, log_cell = grid(points=600)
    second_moment = (2 * posterior.log_prob(z) - Q.log_prob(z) + log_cell).logsumexp(0).exp()
    assert_close(second_moment - 1, chi2(posterior, Q), 1e-9)


@pytest.mark.parametrize(
    "num_particles, golden, se",
    [
        (2, -8.54908, 75e-5),
        (5, -8.40907, 61e-5),
        (10, -8.37327, 57e-5),
        (50, -8.34775, 55e-5),
        (200, -8.34327, 54e-5),
    ],
)
def test_iwae_goldens_within_their_standard_error(num_particles, golden, se):
    assert abs(iwae(joint_1, Q, num_particles) - golden) < 3 * se


@pytest.mark.slow
def test_iwae_is_the_elbo_at_one_particle_and_rises_to_log_px():
    bounds = [iwae(joint_1, Q, k).item() for k in (1, 2, 3, 10, 100, 1000)]
    assert_close(bounds[0], GOLDEN_1.elbo(X_1, Q), 1e-8)
    assert bounds == sorted(bounds) and bounds[-1] < GOLDEN_1.log_px(X_1)
    gap = GOLDEN_1.log_px(X_1) - bounds[-1]
    assert_close(2000 * gap, chi2(GOLDEN_1.posterior(X_1), Q), 2e-3)
    assert_close(bounds[-1], iwae_asymptote(GOLDEN_1.log_px(X_1), Q, GOLDEN_1.posterior(X_1), 1000), 1e-5)
    assert_close(iwae(joint_1, GOLDEN_1.posterior(X_1), 7), GOLDEN_1.log_px(X_1), 1e-9)  # constant weights: no gap


def test_iwae_by_monte_carlo_and_unbiased_weights():
    z = normal(Q).sample((400_000,))
    log_w = joint_1(z) - Q.log_prob(z)
    for k in (1, 4, 20):
        mean, se = iwae_monte_carlo(log_w, k)
        assert abs(mean - iwae(joint_1, Q, k)) < 4 * se
    ratio = (log_w - GOLDEN_1.log_px(X_1)).exp()
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(len(ratio))
    assert_close(ratio.var(), chi2(GOLDEN_1.posterior(X_1), Q), 0.02)
    with pytest.raises(ValueError, match="multiple of num_particles=3"):
        iwae_monte_carlo(log_w[:400], 3)


def test_quadrature_meets_the_closed_form():
    assert_close(log_px_grid(joint_1), GOLDEN_1.log_px(X_1), 1e-9)
    assert_close(log_px_hermite(joint_1, nodes=120), GOLDEN_1.log_px(X_1), 1e-9)
    assert_close(elbo_hermite(joint_1, Q.loc, torch.linalg.cholesky(Q.cov)), GOLDEN_1.elbo(X_1, Q), 1e-9)
    z, density = posterior_grid(joint_1)
    assert_close(density, normal(GOLDEN_1.posterior(X_1)).log_prob(z).exp(), 1e-9)


def test_quadrature_takes_a_batch_of_data():
    xs = X_1 + torch.randn(3, 4, dtype=torch.float64)
    assert_close(log_px_grid(lambda z: GOLDEN_1.log_joint(xs[:, None], z)), GOLDEN_1.log_px(xs), 1e-9)


@pytest.mark.parametrize("diagonal", [True, False])
def test_best_gaussian_finds_the_known_optimum(diagonal):
    q, bound = best_gaussian(joint_1, diagonal=diagonal)
    expected = GOLDEN_1.diagonal_optimum(X_1) if diagonal else GOLDEN_1.posterior(X_1)
    assert_close(q.loc, expected.loc, 1e-5)
    assert_close(q.cov, expected.cov, 1e-5)
    assert_close(bound, GOLDEN_1.elbo(X_1, expected), 1e-9)


def bernoulli_joint(z):
    """log p(x, z) of a Bernoulli decoder with two-dimensional z: no closed form, two quadratures."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 6, dtype=torch.float64, generator=generator)
    x = torch.tensor([1, 0, 1, 1, 0, 0], dtype=torch.float64)
    log_lik = torch.nn.functional.logsigmoid((2 * x - 1) * torch.tanh(z @ weight) * 2).sum(-1)
    return Gaussian(torch.zeros(2).double(), torch.eye(2).double()).log_prob(z) + log_lik


def test_two_quadratures_agree_without_conjugacy():
    log_px = log_px_grid(bernoulli_joint, half_width=9)
    assert_close(log_px_hermite(bernoulli_joint, nodes=180), log_px, 1e-5)
    q_diagonal, diagonal = best_gaussian(bernoulli_joint, diagonal=True)
    q_full, full = best_gaussian(bernoulli_joint)
    assert diagonal < full < log_px
    for q, bound in ((q_diagonal, diagonal), (q_full, full)):
        assert_close(iwae(bernoulli_joint, q, 1), bound, 1e-4)
        assert bound < iwae(bernoulli_joint, q, 5) < log_px


@pytest.mark.parametrize("name", ENERGIES)
@pytest.mark.parametrize("confined, constants", [(False, LOG_Z_BOX), (True, LOG_Z_CONFINED)])
def test_log_z_by_simpson(name, confined, constants):
    assert_close(log_z_simpson(ENERGIES[name], confined), constants[name], 1e-6)


def test_ring_energy_needs_no_box_but_waves_do():
    assert_close(log_z_simpson(ENERGIES["U1"], half_width=8, points=1201), LOG_Z_BOX["U1"], 1e-6)
    assert log_z_simpson(ENERGIES["U2"], half_width=8) > LOG_Z_BOX["U2"] + 0.5
    with pytest.raises(ValueError, match="points=100: Simpson's rule needs an odd number; use 101"):
        log_z_simpson(ENERGIES["U1"], points=100)


@pytest.mark.parametrize("name", ENERGIES)
def test_elbo_on_an_energy_stays_below_log_z(name):
    q = Gaussian(torch.zeros(2).double(), torch.diag(torch.tensor([0.25, 0.25]).double()))
    z = normal(q).sample((20_000,))
    confined = -ENERGIES[name](z) - z[:, 0] ** 2 / 8
    bound, se = iwae_monte_carlo(confined - q.log_prob(z), 1)
    assert bound + 5 * se < LOG_Z_CONFINED[name]
