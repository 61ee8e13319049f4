"""The exact posterior of weights, what is predicted by draws of them, and errors that data share."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from oracles import LinearGaussian, assert_close
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal
from torch import nn

from dlvm.distributions import Bernoulli, DiagonalNormal, FixedScale, LearnedScale, Normal
from dlvm.evidence import importance, posterior_predictive, predictive, weight_posterior
from dlvm.experiments.data import digits
from dlvm.experiments.options import weights
from dlvm.experiments.setups.bayesian_classifier import BayesianClassifierSetup
from dlvm.experiments.setups.setup import fresh_pair
from dlvm.guides import Diagonal, FullyObserved, WithGlobals, latents, local_sites
from dlvm.inference import evaluate, generate, load, log_px, save
from dlvm.models import VAE, Bayesian, Conditional
from dlvm.nets import MLP

PRIOR, NOISE, N = 0.8, 0.5, 6
F = torch.tensor([[1.0, 0.2], [0.5, -0.7], [-0.4, 1.3], [0.8, 0.4], [-1.2, -1.1], [0.1, 0.9]], dtype=torch.float64)
Y = torch.tensor([0.3, -1.0, 1.7, 0.1, -0.4, 0.8], dtype=torch.float64)[:, None]
NEW_F = torch.linspace(-3, 3, 16, dtype=torch.float64).reshape(8, 2).flip(1)
NEW_Y = torch.linspace(-1, 2, 8, dtype=torch.float64)[:, None]
double = pytest.mark.usefixtures("float64")


def regression(family=AutoMultivariateNormal):
    torch.manual_seed(0)
    model = Bayesian(Conditional(Normal(MLP(2), 1, scale=FixedScale(NOISE))), N, PRIOR)
    return model, WithGlobals(None, model, family, F, Y)


def with_exact_posterior():
    model, guide = regression()
    exact = weight_posterior(model, F, Y)
    tril = torch.linalg.cholesky(exact.covariance)
    with torch.no_grad():
        guide.shared.loc.copy_(exact.loc)
        guide.shared.scale = tril.diagonal()
        guide.shared.scale_tril = tril / tril.diagonal()[:, None]
    return model, guide, exact


def design(f):
    return PRIOR * torch.cat([f, torch.ones(len(f), 1)], 1)  # for weights of variance 1


@double
def test_posterior_evidence_and_prediction_are_those_of_a_linear_gaussian_model():
    model, _ = regression()
    exact = weight_posterior(model, F, Y)
    oracle = LinearGaussian(design(F), torch.zeros(N), torch.tensor(NOISE**2))
    posterior = oracle.posterior(Y[:, 0])
    assert_close(exact.loc, PRIOR * posterior.loc, 1e-9)
    assert_close(exact.covariance, PRIOR**2 * posterior.cov, 1e-9)
    assert_close(torch.tensor(exact.log_evidence), oracle.log_px(Y[:, 0]), 1e-9)
    for n in range(len(NEW_F)):  # p(y' | D) = p(y', D) / p(D), of a data set of one more
        f, y = torch.cat([F, NEW_F[n : n + 1]]), torch.cat([Y, NEW_Y[n : n + 1]])
        more = LinearGaussian(design(f), torch.zeros(N + 1), torch.tensor(NOISE**2)).log_px(y[:, 0])
        assert_close(exact.log_px(NEW_F[n : n + 1], NEW_Y[n : n + 1])[0], more - oracle.log_px(Y[:, 0]), 1e-9)
    assert list(exact.weights()) == ["likelihood.head.weight", "likelihood.head.bias"] and exact.num_data == N


@double
def test_what_is_not_linear_and_gaussian_has_no_exact_posterior():
    bent = Bayesian(Conditional(Normal(MLP(2, 3, 3), 1, scale=LearnedScale())), N)
    with pytest.raises(ValueError, match="not linear in its weights"):
        weight_posterior(bent, F, Y)
    with pytest.raises(ValueError, match="noise whose scale depends on the weights"):
        weight_posterior(Bayesian(Conditional(DiagonalNormal(nn.Linear(2, 2), 1)), N, only=("likelihood.head",)), F, Y)
    with pytest.raises(ValueError, match="one site in the plate over data, with a Normal"):
        weight_posterior(Bayesian(VAE(2, Bernoulli(MLP(2, 4))), N), torch.ones(N, 4))


@double
def test_predictions_by_draws_of_the_posterior_are_the_exact_ones_within_their_error():
    model, guide, exact = with_exact_posterior()
    truth = exact.log_px(NEW_F, NEW_Y)
    found = predictive(model, guide, [(NEW_F, NEW_Y)], num_weights=400, seed=1)
    assert found.side == "lower" and found.log_p.shape == (400, 8)
    assert ((found.log_px - truth).abs() < 4 * found.log_px_se + found.log_px_bias).all()
    assert abs(found.mean - truth.mean()) < 4 * found.mean_se and found.expected < found.mean
    assert not list(pyro.get_param_store().keys())  # nothing is left for another pair of these names
    split = predictive(model, guide, [(NEW_F[:3], NEW_Y[:3]), (NEW_F[3:], NEW_Y[3:])], num_weights=400, seed=1)
    assert_close(split.log_px, found.log_px, 1e-9)  # however data are batched, the draws are the same

    drawn = posterior_predictive(model, guide)[0].given_weights("y", NEW_F, None, num_weights=400)
    means = torch.stack([fn.mean[:, 0] for fn in drawn])
    assert not list(pyro.get_param_store().keys())
    said = exact.predictive(NEW_F, NEW_Y)
    spread = (said.variance[:, 0] - NOISE**2).sqrt()
    assert ((means.mean(0) - said.mean[:, 0]).abs() < 4 * spread / 400**0.5).all()
    assert_close(means.std(0) / spread, torch.ones(8), 4 / 800**0.5)


@double
def test_the_error_of_a_mean_knows_that_data_share_the_draws():
    """Over seeds, means of p(x' | D) scatter by what both estimates say; by independent data they would seldom."""
    model, guide, _ = with_exact_posterior()
    pair, batch = posterior_predictive(model, guide), [(NEW_F.flip(1), NEW_Y)]
    ours = [predictive(model, guide, batch, num_weights=20, seed=seed) for seed in range(12)]
    theirs = [evaluate(*pair, batch, num_particles=20, seed=seed, engine="eager") for seed in range(12)]
    apart = [importance(*pair, batch, num_particles=20, seed=seed, engine="eager") for seed in range(1)]
    for means, errors in (
        ([one.mean for one in ours], [one.mean_se for one in ours]),
        ([one.log_px for one in theirs], [one.log_px_se for one in theirs]),
    ):
        scatter = torch.tensor(means).std().item()
        told = torch.tensor(errors).square().mean().sqrt().item()
        assert 0.5 < scatter / told < 1.8
    assert max(one.mean_se for one in apart) < 0.75 * told  # of data that share nothing


def test_a_pair_of_data_to_come_is_a_pair_like_any_other(tmp_path):
    torch.manual_seed(0)
    x = torch.rand(12, 4).bernoulli()
    model = Bayesian(VAE(2, Bernoulli(MLP(2, 5, 4))), 6)
    sites = {
        name: site._replace(plates=(site.plates[0]._replace(size=None, given=False),))
        for name, site in local_sites(latents(model, x[:6])).items()
    }
    guide = WithGlobals(Diagonal(sites, MLP(4, 5)), model, AutoNormal, x[:6])
    pair = posterior_predictive(model, guide)
    assert generate(pair[0], n=9)["x"].shape == (9, 4)  # more than the 6 data of training
    first = log_px(*pair, x, num_particles=30, seed=3).log_px
    save(tmp_path, *pair)
    assert torch.equal(log_px(*load(tmp_path), x, num_particles=30, seed=3).log_px, first)
    found = predictive(model, guide, x, num_weights=40, num_particles=20)
    assert abs(found.mean - first.mean()) < 4 * math.hypot(found.mean_se, found.mean_se)
    for refused in (lambda: evaluate(model, guide, x[:6], num_particles=3), lambda: log_px(model, guide, x[:6])):
        with pytest.raises(ValueError, match=r"posterior_predictive\(model, guide\)"):
            refused()


@double
def test_a_point_predicts_as_the_model_with_its_weights():
    model, guide = regression(AutoDelta)
    found = predictive(model, guide, [(NEW_F, NEW_Y)], num_weights=3)
    held = {site: value.detach() for site, value in guide(F, Y).items()}
    with model.holding(held):
        alone = evaluate(model.model, FullyObserved(), [(NEW_F, NEW_Y)])
    assert found.mean == pytest.approx(alone.log_px, abs=1e-12) and found.mean_se < 1e-12


def test_a_point_for_weights_says_that_training_reports_no_bound(monkeypatch):
    loader = digits(binarize=None, batch_size=400).train.giving("x", "y")
    lines: list[str] = []
    monkeypatch.setattr(weights, "say", lines.append)
    fresh_pair(BayesianClassifierSetup((3,), weights="point"), loader, Diagonal, observed=True)
    assert "log p(D, w) per datum, a density of the weights and no bound on log p(D)" in lines[0]
    with pytest.raises(ValueError, match="weights must be normal, low_rank or point for more than 4000 weights"):
        fresh_pair(BayesianClassifierSetup((200,), weights="full_rank"), loader, Diagonal, observed=True)
