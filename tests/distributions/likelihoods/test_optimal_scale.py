"""A scale that follows the residuals: its closed form, that every number is of a true density, holes, the engine."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from torch import nn

from dlvm.distributions import ConstantScaleNormal, Missing, Normal, OptimalScale
from dlvm.evidence import calibrate_scale
from dlvm.guides import Diagonal, latents
from dlvm.inference import ELBO, evaluate, fit
from dlvm.models import VAE
from dlvm.nets import MLP

X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)) * 0.3


def still(dim: int = 1, rate: float = 0.5) -> ConstantScaleNormal:
    """Means of 0, whatever the context."""
    decoder = nn.Linear(2, 3)
    nn.init.zeros_(decoder.weight), nn.init.zeros_(decoder.bias)
    return ConstantScaleNormal(decoder, OptimalScale(dim=dim, rate=rate))


@pytest.mark.parametrize("dim", [1, 3])
def test_the_scale_is_the_mean_of_squares_of_the_batches_so_far(dim):
    likelihood = still(dim, rate=0.25)
    wanted = torch.tensor(0.0)
    for i, batch in enumerate(X.split(10)):
        before = likelihood.scale()
        found = likelihood(torch.zeros(10, 2)).log_prob(batch)
        exact = torch.distributions.Normal(0.0, before).log_prob(batch).sum(-1)
        assert torch.allclose(found, exact, atol=1e-5)  # under what was known before
        square = batch.square().mean() if dim == 1 else batch.square().mean(0)
        rate = max(1 / (i + 1), 0.25)
        wanted = (1 - rate) * wanted + rate * square
        assert torch.allclose(likelihood.scale().square(), wanted.expand(dim), rtol=1e-4)


def test_what_is_evaluated_is_a_density_and_changes_nothing():
    likelihood = still()
    likelihood(torch.zeros(60, 2)).log_prob(X)
    state = {k: v.clone() for k, v in likelihood.state_dict().items()}
    grid = torch.linspace(-4, 4, 4001)
    spread = torch.stack([grid, torch.zeros(4001), torch.zeros(4001)], 1)
    likelihood.eval()
    single = likelihood(torch.zeros(2)).base_dist
    assert torch.trapezoid(single.log_prob(spread)[:, 0].exp(), grid).item() == pytest.approx(1, abs=1e-4)
    with torch.no_grad():
        likelihood.train()(torch.zeros(60, 2)).log_prob(100 * X)
    assert all(torch.equal(v, state[k]) for k, v in likelihood.state_dict().items())


def test_missing_numbers_say_nothing_of_the_scale():
    whole, holed = still(), still()
    x = X.clone()
    x[::2, 1] = math.nan
    x[3] = math.nan
    Missing(holed)(torch.zeros(60, 2)).log_prob(x)
    assert torch.allclose(holed.scale().square(), x[~x.isnan()].square().mean(), rtol=1e-4)
    Missing(whole)(torch.zeros(60, 2)).log_prob(torch.full((60, 3), math.nan))
    assert whole.scale().item() == pytest.approx(1)


def pair() -> tuple[VAE, Diagonal]:
    pyro.set_rng_seed(0)
    model = VAE(2, Normal(MLP(2, 8), 3, scale=OptimalScale(5.0, rate=0.3)))
    return model, Diagonal(latents(model, X), MLP(3, 8))


@pytest.mark.slow
def test_training_ends_near_the_closed_form_and_captured_steps_are_the_eager_ones():
    def run(engine):
        model, guide = pair()
        batches = [(rows,) for rows in X.split(30)]
        epochs = list(fit(model, guide, ELBO(), batches, epochs=25, seed=0, engine=engine, progress=False))
        return model, guide, epochs

    (model, guide, eager), (other, _, captured) = run("eager"), run("captured")
    assert [e.train for e in eager] == [e.train for e in captured]
    assert torch.equal(model.likelihood.scale.log_scale, other.likelihood.scale.log_scale)
    before = evaluate(model, guide, X, num_particles=10).log_px
    assert evaluate(model, guide, X, num_particles=10).log_px == before
    found = model.likelihood.scale().item()
    exact = calibrate_scale(model, guide, X, num_particles=50).after.item()
    assert found == pytest.approx(exact, rel=0.1) and exact < 0.5
