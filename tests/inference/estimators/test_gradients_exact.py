"""Gradients of the objectives against autograd of the exact bound, and against each other."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from oracles import GOLDEN_1, X_1, Gaussian, LinearGaussian, assert_close, iwae
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import nn

from dlvm.guides import IAF, Diagonal, FullRank, latents
from dlvm.inference import IWAE, Renyi, log_weights
from dlvm.models import PPCA
from dlvm.nets import MLP

pytestmark = pytest.mark.usefixtures("float64")
XS = torch.stack([X_1, -X_1, X_1 + 1])
OBJECTIVES = {
    "Trace_ELBO": lambda k: Trace_ELBO(num_particles=k, vectorize_particles=True),
    "TraceMeanField_ELBO": lambda k: TraceMeanField_ELBO(num_particles=k, vectorize_particles=True),
    "Renyi(1)": lambda k: Renyi(1.0, k),
}


def build(Guide, scale=0.5):
    """The golden model, its noise at will, and a guide that is off: each parameter gets a gradient."""
    model = PPCA(GOLDEN_1.weight, GOLDEN_1.mu, scale)
    guide = Guide(latents(model, XS), MLP(4, 3, activation=nn.Identity)).double()
    return model, guide, [*model.parameters(), *guide.parameters()]


def posterior(guide, x) -> Gaussian:
    """What the guide draws z from, with the graph to its parameters."""
    fn = poutine.trace(guide).get_trace(x).nodes["z"]["fn"]
    cov = fn.covariance_matrix if hasattr(fn, "covariance_matrix") else torch.diag_embed(fn.variance)
    return Gaussian(fn.mean, cov)


def oracle_of(model: PPCA) -> LinearGaussian:
    return LinearGaussian(model.weight, model.loc, model.scale**2)


def flat(gradients) -> torch.Tensor:
    return torch.cat([g.flatten() for g in gradients])


def worst_t(objective, model, guide, x, parameters, expected, repeats: int) -> tuple[float, float]:
    """Largest |t| over coordinates of the mean gradient of `repeats` losses, and the largest standard error."""
    draws = torch.stack(
        [flat(torch.autograd.grad(objective.differentiable_loss(model, guide, x), parameters)) for _ in range(repeats)]
    )
    se = draws.std(0) / math.sqrt(repeats)
    error = (draws.mean(0) - expected).abs()
    fixed = se < 1e-9
    assert_close(error[fixed], torch.zeros(int(fixed.sum())), 1e-8)
    return (error / se)[~fixed].max().item(), se.max().item()


@pytest.mark.parametrize("Guide", [Diagonal, FullRank])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_elbo_gradients_are_those_of_the_closed_form(Guide, name):
    """For every parameter of model and guide; 4.5 standard errors for the worst of about 40 coordinates."""
    model, guide, parameters = build(Guide)
    loss = -oracle_of(model).elbo(XS, posterior(guide, XS)).sum()
    expected = flat(torch.autograd.grad(loss, parameters))
    assert expected.abs().min() > 1e-3
    t, se = worst_t(OBJECTIVES[name](1000), model, guide, XS, parameters, expected, 30)
    assert t < 4.5 and se < 0.03 * expected.abs().max()


@pytest.mark.parametrize("Guide", [Diagonal, FullRank])
@pytest.mark.parametrize("num_particles", [1, 4])
def test_iwae_gradients_are_those_of_the_quadrature(Guide, num_particles):
    """Autograd of the exact L_K of one x; noise of scale 2 keeps the guide near enough for the quadrature."""
    x = X_1[None]
    model, guide, parameters = build(Guide, scale=2.0)
    loc, cov = posterior(guide, x)
    oracle, q = oracle_of(model), Gaussian(loc[0], cov.reshape(2, 2))
    bound = iwae(lambda z: oracle.log_joint(X_1, z), q, num_particles, half_width=9.0, points=91)
    expected = -flat(torch.autograd.grad(bound, parameters))
    data = x.expand(1000, -1)
    t, se = worst_t(IWAE(num_particles), model, guide, data, parameters, 1000 * expected, 30)
    assert t < 4.5 and se < 0.03 * 1000 * expected.abs().max()


@pytest.mark.parametrize("Guide", [Diagonal, FullRank, IAF])
def test_with_one_particle_all_objectives_differentiate_alike(Guide):
    model, guide, parameters = build(Guide)
    gradients = []
    for objective in (Trace_ELBO(), IWAE(1), Renyi(0.5, 1), Renyi(1.0, 1)):
        pyro.set_rng_seed(2)
        loss = objective.differentiable_loss(model, guide, XS)
        gradients.append(flat(torch.autograd.grad(loss, parameters)))
    for gradient in gradients[1:]:
        assert_close(gradient, gradients[0], 1e-9)


def test_iwae_weighs_each_particle_by_its_normalised_weight():
    """d L_K = sum_k w~_k d log w_k, from the Jacobian of the weights themselves."""
    model, guide, parameters = build(Diagonal)
    pyro.set_rng_seed(2)
    log_w = log_weights(model, guide, XS, num_particles=3)
    shares = log_w.detach().softmax(0)
    expected = -flat(torch.autograd.grad((shares * log_w).sum(), parameters))
    pyro.set_rng_seed(2)
    loss = IWAE(3).differentiable_loss(model, guide, XS)
    assert_close(flat(torch.autograd.grad(loss, parameters)), expected, 1e-10)


@pytest.mark.parametrize("Guide", [Diagonal, FullRank, IAF])
@pytest.mark.parametrize("objective", [IWAE(3), Renyi(0.5, 3), Renyi(1.0, 2)], ids=repr)
def test_the_three_ways_to_a_loss_agree(Guide, objective):
    """loss, differentiable_loss, loss_and_grads and the module that objective(model, guide) makes, under one seed."""
    model, guide, parameters = build(Guide)
    module = objective(model, guide)
    assert {id(p) for p in module.parameters()} == {id(p) for p in parameters}
    losses = []
    for run in (objective.loss, objective.differentiable_loss, objective.loss_and_grads):
        pyro.set_rng_seed(2)
        losses.append(run(model, guide, XS))
    collected = flat([p.grad for p in parameters])
    pyro.set_rng_seed(2)
    losses.append(module(XS))
    module_gradient = flat(torch.autograd.grad(losses[3], parameters))
    graph_gradient = flat(torch.autograd.grad(losses[1], parameters))
    assert isinstance(losses[0], float) and isinstance(losses[2], float) and losses[1].shape == ()
    assert losses[0] == losses[1].item() == losses[2] == losses[3].item()
    assert_close(collected, graph_gradient, 1e-12)
    assert_close(module_gradient, graph_gradient, 1e-12)


def test_loss_and_grads_adds_to_what_is_there_and_loss_leaves_it():
    model, guide, parameters = build(Diagonal)
    pyro.set_rng_seed(2)
    IWAE(3).loss_and_grads(model, guide, XS)
    once = flat([p.grad for p in parameters]).clone()
    pyro.set_rng_seed(2)
    IWAE(3).loss_and_grads(model, guide, XS)
    IWAE(3).loss(model, guide, XS)
    assert_close(flat([p.grad for p in parameters]), 2 * once, 1e-10)
