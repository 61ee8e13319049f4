"""Models with a prior that is learned: estimates of log p(x) by its density, by its draws and by annealing agree."""

from __future__ import annotations

from functools import partial

import pyro
import pytest
import torch
from torch.distributions import constraints

from dlvm.distributions import (
    Affine,
    Autoregressive,
    Bernoulli,
    FlowPrior,
    LearnedInputs,
    MixturePrior,
    SphericalPrior,
    VampPrior,
)
from dlvm.evidence import annealed, defensive, importance, prior_sampling, quadrature
from dlvm.guides import Diagonal, latents, posterior_of
from dlvm.models import VAE
from dlvm.nets import MLP

PRIORS = {
    "mixture": lambda: MixturePrior(2, 4),
    "maf": lambda: FlowPrior(2, partial(Autoregressive, bijection=Affine(), hidden=(8,)), depth=2),
    "vamp": lambda: None,
}
X = (torch.rand(4, 6, generator=torch.Generator().manual_seed(0)) < 0.4).float()


def pair(word):
    pyro.set_rng_seed(0)
    model = VAE(2, Bernoulli(MLP(2, 8, 6)), PRIORS[word]())
    guide = Diagonal(latents(model, X), MLP(6, 8))
    if word == "vamp":
        model.prior = VampPrior(posterior_of(guide, "z"), LearnedInputs(X, constraints.unit_interval))
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return model, guide


@pytest.mark.slow
@pytest.mark.parametrize("word", PRIORS)
def test_quadrature_draws_of_the_prior_and_of_the_guide_and_annealing_agree(word):
    """The first needs the density alone, the second the draws alone; annealing moves draws by the density's slope."""
    model, guide = pair(word)
    exact = quadrature(model, X).log_px
    for found in (
        prior_sampling(model, X, num_particles=500),
        importance(model, guide, X, num_particles=500),
        defensive(model, guide, X, num_particles=500),
        annealed(model, X, num_chains=20, temperatures=3, leaps=2),
    ):
        error = 5 * found.log_px_se + 1e-4
        assert ((found.log_px - exact).abs() < error).all(), found.method


def test_directions_are_weighed_and_annealing_says_why_it_does_not_move_them():
    pyro.set_rng_seed(0)
    model = VAE(3, Bernoulli(MLP(3, 8, 6)), SphericalPrior(3))
    guide = Diagonal(latents(model, X), MLP(6, 8))
    by_prior, by_guide = prior_sampling(model, X, num_particles=500), importance(model, guide, X, num_particles=500)
    error = 5 * (by_prior.log_px_se.square() + by_guide.log_px_se.square()).sqrt()
    assert ((by_prior.log_px - by_guide.log_px).abs() < error).all()
    with pytest.raises(ValueError, match="'z' is a direction, and no map .*use importance"):
        annealed(model, X, num_chains=2, temperatures=2)
