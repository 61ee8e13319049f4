"""The linear-Gaussian oracles judged: every printed number, and every number by a second route."""

from __future__ import annotations

import pytest
import torch
from oracles import (
    GOLDEN_1,
    GOLDEN_2,
    TWO_LAYER,
    X_1,
    X_2,
    Gaussian,
    assert_close,
    kl,
    normal,
    ppca_optimum,
)
from torch.distributions import kl_divergence

GOLDENS = {"golden 1": (GOLDEN_1, X_1), "golden 2": (GOLDEN_2, X_2)}


def test_golden_1():
    assert_close(GOLDEN_1.log_px(X_1), -8.34168339, 5e-9)
    posterior = GOLDEN_1.posterior(X_1)
    assert_close(posterior.loc, [0.908257, 0.082569], 5e-7)
    assert_close(posterior.cov, [[0.100917, 0.009174], [0.009174, 0.091743]], 5e-7)
    assert_close(GOLDEN_1.diagonal_gap, 0.00456624, 5e-9)
    assert_close(GOLDEN_1.elbo(X_1, GOLDEN_1.diagonal_optimum(X_1)), -8.34624963, 5e-9)
    assert_close(GOLDEN_1.forward_gap, GOLDEN_1.diagonal_gap, 1e-14)


def test_golden_2():
    assert_close(GOLDEN_2.log_px(X_2), -10.90501500, 5e-9)
    assert_close(GOLDEN_2.posterior(X_2).loc, [0.85252158, -0.03471149, 0.51431168], 5e-9)
    assert_close(GOLDEN_2.diagonal_gap, 0.08674943, 5e-9)
    assert_close(GOLDEN_2.diagonal_optimum(X_2).cov.diagonal(), [0.1, 0.09090909, 0.10504202], 5e-9)
    assert_close(GOLDEN_2.forward_gap, 0.09767421, 5e-9)
    assert_close(GOLDEN_2.forward_optimum(X_2).cov.diagonal(), [0.11240345, 0.09922762, 0.12380736], 5e-9)
    assert_close(kl(GOLDEN_2.forward_optimum(X_2), GOLDEN_2.posterior(X_2)), 0.09941802, 5e-9)


@pytest.mark.parametrize("model, x", GOLDENS.values(), ids=GOLDENS)
def test_log_px_and_posterior_by_other_routes(model, x):
    xs = x + torch.randn(5, len(x), dtype=torch.float64)
    assert_close(model.log_px(xs), normal(model.marginal).log_prob(xs))
    posterior = model.posterior(xs)
    z = torch.randn(5, posterior.loc.shape[-1], dtype=torch.float64)
    assert_close(model.log_joint(xs, z) - normal(posterior).log_prob(z), model.log_px(xs))  # Bayes, at any z


@pytest.mark.parametrize("model, x", GOLDENS.values(), ids=GOLDENS)
def test_elbo_is_log_px_minus_kl_for_any_gaussian_in_a_batch(model, x):
    k = model.weight.shape[1]
    xs = x + torch.randn(6, len(x), dtype=torch.float64)
    root = torch.randn(6, k, k, dtype=torch.float64)
    cov = root @ root.mT + 0.1 * torch.eye(k, dtype=torch.float64)
    q = Gaussian(torch.randn(6, k, dtype=torch.float64), cov)
    divergence = kl_divergence(normal(q), normal(model.posterior(xs)))
    assert model.elbo(xs, q).shape == (6,)
    assert_close(model.elbo(xs, q), model.log_px(xs) - divergence, 1e-9)
    assert_close(kl(q, model.posterior(xs)), divergence, 1e-9)


@pytest.mark.parametrize("model, x", GOLDENS.values(), ids=GOLDENS)
def test_diagonal_optimum_is_stationary_for_its_own_divergence(model, x):
    best = model.diagonal_optimum(x)
    loc, log_var = best.loc.clone().requires_grad_(), best.cov.diagonal().log().requires_grad_()
    model.elbo(x, Gaussian(loc, torch.diag(log_var.exp()))).backward()
    assert_close(loc.grad, torch.zeros_like(loc))
    assert_close(log_var.grad, torch.zeros_like(loc))
    best = model.forward_optimum(x)
    log_var = best.cov.diagonal().log().requires_grad_()
    kl(model.posterior(x), Gaussian(best.loc, torch.diag(log_var.exp()))).backward()
    assert_close(log_var.grad, torch.zeros_like(log_var))


def test_block_gap_lies_between_full_rank_and_diagonal():
    assert abs(GOLDEN_2.block_gap([[0, 1, 2]])) < 1e-14
    pairs = [GOLDEN_2.block_gap(b).item() for b in ([[0, 1], [2]], [[0, 2], [1]], [[0], [1, 2]])]
    assert all(0 < gap < GOLDEN_2.diagonal_gap for gap in pairs)
    cov = torch.zeros(3, 3, dtype=torch.float64)
    cov[:2, :2] = torch.linalg.inv(GOLDEN_2.precision[:2, :2])
    cov[2, 2] = 1 / GOLDEN_2.precision[2, 2]
    assert_close(GOLDEN_2.log_px(X_2) - GOLDEN_2.elbo(X_2, Gaussian(GOLDEN_2.posterior(X_2).loc, cov)), pairs[0])


def test_ppca_optimum_is_the_likelihood_it_claims_and_cannot_be_improved():
    x = GOLDEN_2.marginal.loc + normal(GOLDEN_2.marginal).sample((200,))
    bound, model, activity = ppca_optimum(x, 2)
    assert_close(model.log_px(x).mean(), bound)
    assert_close(model.posterior(x).loc.var(0, unbiased=False).sort().values, activity.sort().values)
    weight, s2 = model.weight.clone().requires_grad_(), model.s2.clone().requires_grad_()
    model._replace(weight=weight, s2=s2).log_px(x).mean().backward()
    assert_close(weight.grad, torch.zeros_like(weight))
    assert_close(s2.grad, 0.0)
    diagonal = model.elbo(x, model.diagonal_optimum(x)).mean()
    assert_close(diagonal, bound)  # W's columns are orthogonal, so the diagonal guide is exact
    with pytest.raises(ValueError, match="z_dim=5: expected 0 < z_dim < x_dim=5"):
        ppca_optimum(x, 5)


def test_two_layer_joint_is_prior_times_likelihood_and_obeys_bayes():
    x, z = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    assert_close(TWO_LAYER.log_px(x), normal(TWO_LAYER.marginal).log_prob(x))
    log_joint = TWO_LAYER.log_joint(x, z[:, :2], z[:, 2:])
    assert_close(log_joint - normal(TWO_LAYER.posterior(x)).log_prob(z), TWO_LAYER.log_px(x))


@pytest.mark.parametrize("order", ["bottom_up", "top_down"])
def test_both_orders_contain_the_exact_posterior(order):
    x, z = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    z1, z2 = z[:, :2], z[:, 2:]
    head, conditional = getattr(TWO_LAYER, order)(x)
    first, second = (z1, z2) if order == "bottom_up" else (z2, z1)
    log_q = head.log_prob(first) + conditional(first).log_prob(second)
    assert_close(TWO_LAYER.log_joint(x, z1, z2) - log_q, TWO_LAYER.log_px(x))


def test_bottom_up_second_factor_ignores_x_and_independent_layers_lose():
    _, conditional = TWO_LAYER.bottom_up(torch.randn(5, 4, dtype=torch.float64))
    assert_close(conditional.loc, torch.zeros(5, 2))
    assert TWO_LAYER.layer_gap > 0.1
