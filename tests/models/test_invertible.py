"""NICE and RealNVP as programs: their exact log p(x), what they learn, and grey levels under them."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from oracles import assert_close
from pyro import poutine
from torch import nn

from dlvm.distributions import Composition, Logit, Standardise, image_flow, vector_flow
from dlvm.guides import Dequantiser, FullyObserved, latents
from dlvm.inference import ELBO, IWAE, evaluate, fit, load, log_weights, save
from dlvm.models import NICE, Dequantised, RealNVP

TINY = {"scales": 2, "depth": 1, "width": 4, "blocks": 1, "actnorm": True, "mixing": True}
MODELS = {
    "nice": lambda: NICE(4, (8,), before=Standardise(torch.ones(4), 2 * torch.ones(4))),
    "real nvp": lambda: RealNVP(4, vector_flow(4, 4, (8,), actnorm=True)),
    "images": lambda: RealNVP(4, Composition(Logit(0.1), image_flow((1, 2, 2), **TINY)), noise="logistic"),
}


@pytest.fixture(params=MODELS)
def model(request):
    made = MODELS[request.param]()
    with torch.no_grad():
        for value in made.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return made


def test_the_program_is_its_density_and_draws_by_the_inverse(model):
    x = model(n=7).detach()
    assert x.shape == (7, 4)
    trace = poutine.trace(model).get_trace(x)
    trace.compute_log_prob()
    assert [name for name, site in trace.nodes.items() if site["type"] == "sample"] == ["data", "x"]
    assert_close(trace.nodes["x"]["log_prob"], model.likelihood().log_prob(x), 1e-6)
    flow, density = model.likelihood.flow, model.likelihood()
    noise, log_det = flow(x)
    assert_close(flow.inverse(noise), x, 1e-4)
    assert_close(density.noise.log_prob(noise) + log_det, density.log_prob(x), 1e-6)


def test_every_bound_is_log_px_and_evaluation_is_exact(model):
    x = model(n=6).detach()
    log_px = model.likelihood().log_prob(x).detach()
    assert_close(log_weights(model, FullyObserved(), x, num_particles=2), log_px.expand(2, -1), 1e-5)
    for objective in (ELBO(), IWAE(3)):
        assert_close(torch.tensor(objective.loss(model, FullyObserved(), x)), -log_px.sum(), 1e-3)
    found = evaluate(model, FullyObserved(), x, num_particles=2)
    assert found.log_px == pytest.approx(log_px.mean().item(), abs=1e-4) == pytest.approx(found.elbo, abs=1e-4)


def test_a_pair_comes_back_from_its_folder(model, tmp_path):
    x = model(n=3).detach()
    save(tmp_path / "pair", model, FullyObserved())
    back, _ = load(tmp_path / "pair")
    assert torch.equal(back.likelihood().log_prob(x), model.likelihood().log_prob(x))


def test_training_finds_the_density_of_correlated_numbers():
    """Of the noise's own family under one linear step, whose entropy is known: log p(x) ends near its negative."""
    pyro.set_rng_seed(0)
    tril = torch.tensor([[1.0, 0.0], [1.5, 0.5]])
    x = torch.randn(2000, 2) @ tril.T + torch.tensor([3.0, -1.0])
    model = RealNVP(2, vector_flow(2, 2, (), actnorm=True))
    model.initialise(x[:500])
    adam = lambda parameters: torch.optim.Adam(parameters, lr=0.03)  # noqa: E731
    batches = [(rows,) for rows in x.split(250)]
    how = {"optimizer": adam, "seed": 0, "engine": "eager", "progress": False}
    list(fit(model, FullyObserved(), ELBO(), batches, epochs=15, **how))
    with torch.no_grad():
        found = model.likelihood().log_prob(x)
    best = torch.distributions.MultivariateNormal(x.mean(0), x.T.cov()).log_prob(x)
    assert -0.02 < (found - best).mean() < 0.01
    assert abs(best.mean() + 1 + math.log(2 * math.pi) + math.log(0.5)) < 0.1


def test_the_levels_of_a_tiny_image_have_probabilities_that_sum_to_the_mass_within_its_cube():
    """Two pixels of three levels: log p(x) by many draws of the noise, against the density over each cell by a grid."""
    inner = RealNVP(2, Composition(Logit(0.05), image_flow((1, 1, 2), 1, 1, 4, 1)))
    model = Dequantised(inner, 3).requires_grad_(False).eval()
    x = torch.cartesian_prod(*[torch.arange(3.0)] * 2) / 2
    guide = Dequantiser(FullyObserved(), latents(model, x)["u"])
    axis = (torch.arange(150) + 0.5) / 150
    density = inner.likelihood().log_prob(torch.cartesian_prod(axis, axis)).exp().reshape(3, 50, 3, 50)
    mass = density.sum((1, 3)).flatten() / 150**2
    weights = log_weights(model, guide, x, num_particles=4000).double().exp()
    assert ((weights.mean(0) - mass).abs() < 4.5 * weights.std(0) / 4000**0.5 + 1e-4).all()
    assert 0.8 < mass.sum() < 1 and evaluate(model, guide, x, num_particles=10).bits_per_dim > 0


def test_a_scale_of_logistic_noise_is_started_from_data():
    model, x = NICE(3, (8,)), torch.randn(400, 3) * torch.tensor([1.0, 10.0, 0.1]) + 5
    model.initialise(x)
    z, _ = model.likelihood.flow(x)
    assert_close(z.mean(0), torch.zeros(3), 1e-4)
    assert_close(z.var(0, correction=0), torch.ones(3), 1e-3)


def test_a_flow_of_ones_own_needs_no_start():
    class Doubled(nn.Module):
        def forward(self, y):
            return 2 * y, torch.full(y.shape[:-1], y.shape[-1] * math.log(2))

        def inverse(self, z):
            return z / 2

    model = RealNVP(3, Doubled())
    model.initialise(torch.zeros(5, 3))
    assert_close(model.likelihood().log_prob(torch.zeros(3)), 3 * (math.log(2) - 0.5 * math.log(2 * math.pi)), 1e-5)
