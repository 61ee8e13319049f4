"""PPCA against the oracles, which know every answer."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import GOLDEN_1, GOLDEN_2, X_1, X_2, assert_close, normal, ppca_optimum
from pyro import poutine

from dlvm.inference import fit_em
from dlvm.models import PPCA

GOLDENS = pytest.mark.parametrize("oracle, x", [(GOLDEN_1, X_1), (GOLDEN_2, X_2)], ids=["golden 1", "golden 2"])


def build(oracle) -> PPCA:
    return PPCA(oracle.weight, oracle.mu, oracle.s2.sqrt())


@GOLDENS
def test_log_px_and_posterior_are_exact(oracle, x):
    model, xs = build(oracle), x + torch.randn(5, len(x)).double()
    assert_close(model.log_px(xs), oracle.log_px(xs), 1e-10)
    posterior, expected = model.posterior(xs), oracle.posterior(xs)
    assert_close(posterior.mean, expected.loc, 1e-10)
    assert_close(posterior.covariance_matrix, expected.cov.expand(5, -1, -1), 1e-10)
    assert_close(model.log_px(x[None])[0], {4: -8.34168339, 5: -10.90501500}[len(x)], 5e-9)


@GOLDENS
def test_the_program_is_the_joint_density(oracle, x):
    model, xs = build(oracle), x + torch.randn(5, len(x)).double()
    trace = poutine.trace(model).get_trace(xs)
    trace.compute_log_prob()
    z = trace.nodes["z"]["value"]
    log_joint = trace.nodes["z"]["log_prob"] + trace.nodes["x"]["log_prob"]
    assert log_joint.shape == (5,) and trace.nodes["x"]["is_observed"]
    assert_close(log_joint, oracle.log_joint(xs, z), 1e-10)
    assert_close(log_joint - model.posterior(xs).log_prob(z), oracle.log_px(xs), 1e-9)


def test_draws_have_the_marginal_moments():
    model, n = build(GOLDEN_1), 40_000
    x = model(n=n)
    assert x.shape == (n, 4)
    standard = torch.linalg.solve_triangular(
        torch.linalg.cholesky(GOLDEN_1.marginal.cov), (x - GOLDEN_1.mu).T, upper=False
    ).T
    assert standard.mean(0).abs().max() < 5 / math.sqrt(n)
    assert (standard.T @ standard / n - torch.eye(4)).abs().max() < 5 * math.sqrt(2 / n)


def test_maximum_likelihood_is_the_closed_form_optimum():
    x = normal(GOLDEN_2.marginal).sample((300,))
    model, (bound, oracle, _) = PPCA.maximum_likelihood(x, 2), ppca_optimum(x, 2)
    assert_close(model.log_px(x).mean(), bound, 1e-10)
    assert_close(model.weight @ model.weight.T, oracle.weight @ oracle.weight.T, 1e-10)
    gradients = torch.autograd.grad(model.log_px(x).mean(), list(model.parameters()))
    assert len(gradients) == 3
    for gradient in gradients:
        assert_close(gradient, torch.zeros_like(gradient), 1e-9)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((torch.ones(3), torch.zeros(3), 1.0), r"weight must be \(x_dim, z_dim\)"),
        ((torch.ones(3, 2), torch.zeros(2), 1.0), r"got \(3, 2\) and \(2,\)"),
        ((torch.ones(3, 2), torch.zeros(3), 0.0), "scale must be one positive finite number"),
        ((torch.ones(3, 2), torch.zeros(3), -1.0), "scale must be one positive finite number"),
        ((torch.ones(3, 2), torch.zeros(3), math.nan), "scale must be one positive finite number"),
        ((torch.ones(3, 2), torch.zeros(3), torch.ones(3)), "scale must be one positive finite number"),
    ],
)
def test_bad_parameters_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        PPCA(*arguments)


@pytest.mark.parametrize("shape, z_dim", [((10, 4), 0), ((10, 4), 4), ((3, 4), 2), ((10,), 1)])
def test_maximum_likelihood_needs_enough_data(shape, z_dim):
    with pytest.raises(ValueError, match="0 < z_dim < x_dim < n"):
        PPCA.maximum_likelihood(torch.randn(shape), z_dim)


def test_parameters_are_copies_of_what_was_given():
    weight = torch.ones(3, 2)
    model = PPCA(weight, torch.zeros(3), 1.0)
    with torch.no_grad():
        model.weight.add_(1.0)
    assert torch.equal(weight, torch.ones(3, 2))


def _apart(loc: torch.Tensor) -> tuple[PPCA, torch.Tensor]:
    """A model far from the data, and the data: three strong directions of six."""
    draw = torch.Generator().manual_seed(4)
    mix = torch.linalg.qr(torch.randn(6, 3, generator=draw).double())[0] * torch.tensor([3.0, 2.5, 2.0])
    x = torch.randn(60, 3, generator=draw).double() @ mix.T + torch.randn(60, 6, generator=draw).double() + 2
    return PPCA(torch.randn(6, 3, generator=draw).double(), x.mean(0) + loc, 1.5), x


def test_em_takes_the_steps_of_tipping_and_bishop():
    model, x = _apart(torch.zeros(6).double())
    w, s2, cov = model.weight.detach().clone(), model.scale.item() ** 2, torch.cov(x.T, correction=0)
    one = torch.eye(3).double()
    for record in fit_em(model, x, iterations=4, tolerance=0):
        if record.iteration:
            inverse = torch.linalg.inv(w.T @ w + s2 * one)
            moved = cov @ w @ torch.linalg.inv(s2 * one + inverse @ w.T @ cov @ w)
            w, s2 = moved, (torch.trace(cov - cov @ w @ inverse @ moved.T) / 6).item()
        assert_close(model.weight, w, 1e-9)
        assert model.scale.item() ** 2 == pytest.approx(s2, rel=1e-9)
        assert_close(model.loc, x.mean(0), 1e-9)


def test_em_rises_to_the_maximum_from_anywhere():
    model, x = _apart(torch.linspace(-5, 5, 6).double())
    records = list(fit_em(model, [(x[:25],), (x[25:],)], iterations=100, tolerance=0))
    assert all(record.rise > -1e-12 for record in records[1:])
    best = PPCA.maximum_likelihood(x, 3)
    assert records[-1].log_px == pytest.approx(best.log_px(x).mean().item(), abs=1e-5)
    assert_close(model.loc, x.mean(0), 1e-2)


def test_em_on_data_without_noise_is_refused():
    x = torch.randn(20, 1).double() @ torch.ones(1, 3).double()
    with pytest.raises(ValueError, match="smaller z_dim"):
        list(fit_em(PPCA(torch.ones(3, 2).double(), torch.zeros(3).double(), 1e-9), x, iterations=500, tolerance=0))
