"""Mixtures of Bernoullis and of factor analysers, and the VAE with clusters, against sums and integrals."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import FactorAnalysis
from torch.distributions import MultivariateNormal

from dlvm.distributions import Bernoulli
from dlvm.evidence import enumerated, quadrature
from dlvm.guides import Diagonal, latents
from dlvm.inference import ELBO, IWAE, SVI, VIMCO, fit_em, log_weights
from dlvm.models import GMVAE, BernoulliMixture, FactorAnalysers, GaussianMixture
from dlvm.nets import MLP


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


BITS = (noise(60, 5, seed=1) + 2 * noise(3, 5, seed=2)[torch.arange(60) % 3] > 0).double()
REAL = 0.3 * noise(90, 4) + (noise(3, 4, 2, seed=1)[torch.arange(90) % 3] @ noise(90, 2, 1, seed=2)).squeeze(-1)


def bits(components: int = 3, **settings: float) -> BernoulliMixture:
    torch.manual_seed(1)
    return BernoulliMixture(components, 5, **settings).double().start_at(BITS)


def analysers(components: int = 3, z_dim: int = 2, **settings: float) -> FactorAnalysers:
    torch.manual_seed(1)
    return FactorAnalysers(components, 4, z_dim, **settings).double().start_at(REAL)


def test_probabilities_of_all_bits_sum_to_one_and_are_those_of_the_program():
    model = bits()
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 5)
    assert model.log_px(every).exp().sum().item() == pytest.approx(1)
    assert torch.allclose(model.log_px(every), enumerated(model, every).log_px)
    assert torch.allclose(log_weights(model, model.guide, BITS, num_particles=2), model.log_px(BITS).expand(2, -1))


def test_one_component_of_bits_has_the_rates_of_the_data():
    model = bits(components=1)
    list(fit_em(model, BITS, iterations=1))
    assert torch.allclose(model.probabilities[0], BITS.mean(0).clamp(1e-3, 1 - 1e-3))


def test_a_step_of_em_on_bits_is_the_weighted_mean():
    model = bits()
    shares = model.posterior(BITS).probs.detach()
    list(fit_em(model, BITS, iterations=1))
    by_hand = (shares.T @ BITS / shares.sum(0)[:, None]).clamp(1e-3, 1 - 1e-3)
    assert torch.allclose(model.probabilities, by_hand) and torch.allclose(model.weights, shares.mean(0))


def test_factor_analysers_are_a_mixture_of_gaussians_of_low_rank():
    model = analysers(z_dim=2)
    list(fit_em(model, REAL, iterations=3))
    covariance = model.loading @ model.loading.mT + torch.diag((2 * model.log_scale).exp())
    each = torch.stack([MultivariateNormal(m, c).log_prob(REAL) for m, c in zip(model.loc, covariance, strict=True)])
    assert torch.allclose(model.log_px(REAL), (each.T + model.weights.log()).logsumexp(-1))
    assert torch.allclose(model.log_px(REAL[:3]), quadrature(model, REAL[:3]).log_px, atol=1e-6)
    drawn = model.draw_of(torch.full((20_000,), 1))
    assert torch.allclose(torch.cov(drawn.T), covariance[1], atol=8 * covariance[1].max().item() / 20_000**0.5)


def test_the_exact_posterior_of_factor_analysers_leaves_no_gap():
    model = analysers()
    log_w = log_weights(model, model.guide, REAL, num_particles=3)
    assert torch.allclose(log_w, model.log_px(REAL).expand(3, -1), atol=1e-8)


def test_one_factor_analyser_goes_where_scikit_learn_goes():
    x = noise(200, 1) * torch.tensor([1.0, -2.0, 0.5, 1.5]).double() + noise(200, 4, seed=1)
    peer = FactorAnalysis(1, tol=1e-10, max_iter=2000, svd_method="lapack").fit(x.numpy())
    torch.manual_seed(0)
    records = list(fit_em(FactorAnalysers(1, 4, 1).double().start_at(x), x, iterations=500, tolerance=1e-12))
    assert records[-1].log_px == pytest.approx(peer.score(x.numpy()), abs=1e-7)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), components=st.integers(1, 4), z_dim=st.integers(1, 3))
def test_em_never_falls(seed, components, z_dim):
    x = noise(50, 4, seed=seed) * 10.0 ** noise(4, seed=seed + 1)
    torch.manual_seed(seed)
    models = [
        (FactorAnalysers(components, 4, z_dim, least=1e-2).double().start_at(x), x),
        (BernoulliMixture(components, 5, least=0.02).double().start_at(BITS), BITS),
    ]
    for model, data in models:
        try:
            found = [record.log_px for record in fit_em(model, data, iterations=8, tolerance=0)]
        except ValueError as error:
            assert "empty" in str(error)
            continue
        assert all(after >= before - 1e-9 * (1 + abs(before)) for before, after in zip(found, found[1:], strict=False))


def gmvae() -> GMVAE:
    torch.manual_seed(4)
    return GMVAE(GaussianMixture(3, 2, "diagonal"), Bernoulli(MLP(2, 8, 5))).double()


def test_clusters_that_no_guide_draws_are_summed_out():
    """The bound is that of the mixture as a prior; and log p(x) that of the integral over it."""
    model = gmvae()
    guide = Diagonal({"z": latents(model, BITS)["z"]}, MLP(5, 8)).double()
    torch.manual_seed(0)
    found = log_weights(model, guide, BITS, num_particles=2)
    torch.manual_seed(0)
    z = torch.stack([guide(BITS)["z"], torch.zeros(60, 2)])  # the draws of one particle, to be scored by hand
    torch.manual_seed(0)
    one = log_weights(model, guide, BITS, num_particles=1)[0]
    q = guide.posteriors[0](guide.features(BITS)).log_prob(z[0])
    by_hand = model.clusters.log_px(z[0]) + model.likelihood(z[0]).log_prob(BITS) - q
    assert torch.allclose(one, by_hand) and found.shape == (2, 60)
    grid = torch.cartesian_prod(*[torch.linspace(-9, 9, 181).double()] * 2)  # of cells of 0.1 by 0.1
    cells = model.clusters.log_px(grid) + model.likelihood(grid[:, None]).log_prob(BITS[:4]).T
    exact = cells.logsumexp(-1) + 2 * math.log(0.1)
    assert torch.allclose(quadrature(model, BITS[:4]).log_px, exact, atol=1e-5)
    assert torch.allclose(model.cluster(grid).probs.sum(-1), torch.ones(len(grid)).double())


@pytest.mark.slow
@pytest.mark.parametrize("make, drawn", [(gmvae, ("y", "z")), (analysers, ("z",))], ids=["drawn", "summed out"])
def test_captured_steps_are_the_eager_ones(make, drawn):
    losses = {}
    for engine in ("eager", "captured"):
        model, x = make(), BITS if make is gmvae else REAL
        torch.manual_seed(2)
        found = {name: site for name, site in latents(model, x).items() if name in drawn}
        guide = Diagonal(found, MLP(x.shape[1], 8)).double()
        torch.manual_seed(3)
        svi = SVI(model, guide, torch.optim.Adam, ELBO(2) if drawn == ("z",) else IWAE(3, VIMCO()), engine=engine)
        losses[engine] = [svi.step(x) for _ in range(3)]
    assert losses["eager"] == losses["captured"]
