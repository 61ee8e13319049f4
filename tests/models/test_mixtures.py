"""Mixtures: exact answers against enumeration, EM against scikit-learn and closed forms, in any order of labels."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro.infer import Predictive
from sklearn.mixture import GaussianMixture as Peer

from dlvm.evidence import enumerated
from dlvm.guides import Diagonal, FullyObserved, latents
from dlvm.inference import ELBO, IWAE, SVI, VIMCO, GumbelSoftmax, evaluate, fit, fit_em, log_weights
from dlvm.models import GaussianMixture
from dlvm.nets import MLP

COVARIANCES = ["full", "diagonal", "tied", "spherical"]


def three_clusters() -> torch.Tensor:
    torch.manual_seed(0)
    parts = torch.randn(40, 3) * torch.tensor([1.0, 0.3, 2.0]), torch.randn(60, 3) + 3, torch.randn(30, 3) / 2 - 2
    return torch.cat(parts).double()


X = three_clusters()


def started(covariance: str, components: int = 3, **settings: float) -> GaussianMixture:
    torch.manual_seed(1)
    return GaussianMixture(components, 3, covariance, **settings).double().start_at(X)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_every_step_of_em_is_that_of_scikit_learn(covariance):
    model = started(covariance)
    precision = torch.linalg.inv(model.covariances().detach())
    shown = {
        "full": lambda c: c,
        "diagonal": lambda c: c.diagonal(dim1=-2, dim2=-1),
        "tied": lambda c: c[0],
        "spherical": lambda c: c[:, 0, 0],
    }[covariance]
    start = dict(weights_init=model.weights, means_init=model.loc, precisions_init=shown(precision))
    peer = Peer(
        3,
        covariance_type={"diagonal": "diag"}.get(covariance, covariance),
        **{name: value.detach().numpy().copy() for name, value in start.items()},
        warm_start=True,
        max_iter=1,
        tol=0,
    )
    for record in fit_em(model, X, iterations=6, tolerance=0):
        if record.iteration:
            assert np.allclose(peer.weights_, model.weights.detach(), atol=1e-9)
            assert np.allclose(peer.means_, model.loc.detach(), atol=1e-9)
            assert np.allclose(peer.covariances_, shown(model.covariances().detach()), atol=1e-9)
            assert peer.score(X.numpy()) == pytest.approx(record.log_px, abs=1e-9)
        with warnings.catch_warnings():  # it has not converged after one step, and says so
            warnings.simplefilter("ignore")
            peer.fit(X.numpy())


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_one_component_is_a_gaussian_after_one_step(covariance):
    model = started(covariance, components=1, reg_covar=0.0)
    first, second, third = fit_em(model, X, iterations=2, tolerance=0)
    sample = torch.cov(X.T, correction=0)
    of_kind = {"diagonal": sample.diag().diag(), "spherical": sample.diag().mean() * torch.eye(3)}
    assert torch.allclose(model.loc[0], X.mean(0), atol=1e-12)
    assert torch.allclose(model.covariances()[0], of_kind.get(covariance, sample).double(), atol=1e-12)
    assert second.log_px > first.log_px and third.log_px == pytest.approx(second.log_px, abs=1e-12)
    gaussian = torch.distributions.MultivariateNormal(X.mean(0), model.covariances()[0])
    assert torch.allclose(model.log_px(X), gaussian.log_prob(X))


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_the_closed_form_is_the_sum_over_components(covariance):
    """By the program itself, whose draws have the means and variances that the components say."""
    model = started(covariance)
    assert torch.allclose(model.log_px(X[:7]), enumerated(model, X[:7]).log_px, atol=1e-10)
    each = [torch.distributions.MultivariateNormal(m, c) for m, c in zip(model.loc, model.covariances(), strict=True)]
    by_hand = torch.stack([w.log() + p.log_prob(X) for w, p in zip(model.weights, each, strict=True)]).logsumexp(0)
    assert torch.allclose(model.log_px(X), by_hand, atol=1e-10)
    drawn = torch.stack([model.draw_of(torch.full((4000,), k)) for k in range(3)])
    mean, variance = model.moments()
    assert ((drawn.mean(1) - mean).abs() < 5 * (variance / 4000).sqrt()).all()
    assert ((drawn.var(1) / variance - 1).abs() < 5 * (2 / 4000) ** 0.5).all()


def test_the_exact_posterior_leaves_no_gap():
    model = started("full")
    log_w = log_weights(model, model.guide, X[:9], num_particles=4)
    assert torch.allclose(log_w, model.log_px(X[:9]).expand(4, 9), atol=1e-10)
    found = evaluate(model, model.guide, [(X,)], num_particles=2)
    assert found.elbo == pytest.approx(found.log_px, abs=1e-6)


def test_a_guide_that_draws_nothing_gives_the_exact_evidence_and_its_gradient():
    model = started("full")
    loss = ELBO().differentiable_loss(model, FullyObserved(), X)
    assert loss.item() == pytest.approx(-model.log_px(X).sum().item())
    found = torch.autograd.grad(loss, [model.logits, model.loc])
    exact = torch.autograd.grad(-model.log_px(X).sum(), [model.logits, model.loc])
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(found, exact, strict=True))


@pytest.mark.parametrize(
    "estimator",
    [None, pytest.param(VIMCO(), marks=pytest.mark.slow), pytest.param(GumbelSoftmax(), marks=pytest.mark.slow)],
    ids=["sum", "vimco", "gumbel"],
)
def test_captured_steps_are_the_eager_ones(estimator):
    losses, x = {}, X[::3]
    for engine in ("eager", "captured"):
        model = started("full")
        torch.manual_seed(2)
        guide = FullyObserved() if estimator is None else Diagonal(latents(model, x), MLP(3, 8)).double()
        svi = SVI(model, guide, torch.optim.Adam, ELBO() if estimator is None else IWAE(3, estimator), engine=engine)
        losses[engine] = [svi.step(x) for _ in range(3)]
    assert losses["eager"] == losses["captured"]


def test_steps_with_so_few_data_that_other_components_are_drawn_each_time_are_captured():
    model = started("full", components=9)
    guide = Diagonal(latents(model, X), MLP(3, 8)).double()
    settings = {"epochs": 1, "seed": 0, "engine": "captured", "progress": False}
    (record,) = fit(model, guide, ELBO(2, VIMCO()), [(X[:3],)] * 30, **settings)
    assert record.engine == "captured"


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    components=st.integers(1, 4),
    covariance=st.sampled_from(COVARIANCES),
    scale=st.floats(1e-3, 1e3),
)
def test_em_never_falls(seed, components, covariance, scale):
    """Without a ``reg_covar``, in whatever units the data are."""
    torch.manual_seed(seed)
    x = scale * (torch.randn(60, 2) + 3 * torch.randn(components, 2)[torch.randint(components, (60,))])
    model = GaussianMixture(components, 2, covariance, reg_covar=0.0).double().start_at(x.double())
    try:
        found = [record.log_px for record in fit_em(model, x.double(), iterations=8, tolerance=0)]
    except ValueError as error:  # a component on too few data, which is told
        assert "singular" in str(error) or "empty" in str(error)
        return
    assert all(after >= before - 1e-10 * (1 + abs(before)) for before, after in zip(found, found[1:], strict=False))


def test_where_a_component_stands_in_the_list_changes_nothing():
    model, other = started("full"), started("full")
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        for mine, theirs in zip(other.parameters(), model.parameters(), strict=True):
            mine.copy_(theirs[order])
    a, b = ([record.log_px for record in fit_em(m, X, iterations=4)] for m in (model, other))
    assert a == pytest.approx(b, abs=1e-10)
    assert torch.allclose(model.posterior(X).probs[:, order], other.posterior(X).probs, atol=1e-8)


def test_draws_of_the_program_have_the_moments_of_the_mixture():
    model = started("tied")
    list(fit_em(model, X, iterations=5))
    drawn = Predictive(model, num_samples=1)(n=20_000)["x"][0]
    assert ((drawn.mean(0) - X.mean(0)).abs() < 5 * X.std(0) / 20_000**0.5).all()


def test_what_a_mixture_refuses_says_what_to_do():
    constant = torch.cat([X, torch.zeros(len(X), 1)], 1)
    for call, words in [
        (lambda: GaussianMixture(3, 4, reg_covar=0.0).double().start_at(constant), "constant in 1 columns"),
        (lambda: GaussianMixture(3, 3).double().start_at(X[:1].expand(9, 3)), "1 different data for 3 components"),
        (lambda: GaussianMixture(3, 3).log_px(X), "torch.float32"),
        (lambda: started("full").log_px(torch.where(X == X[0, 0], torch.nan, X)), "fill NaN in"),
        (lambda: list(fit_em(started("full"), X[:2])), "2 data cannot tell 3 components apart"),
        (lambda: list(fit_em(started("full", reg_covar=0.0), X[:4])), "reg_covar=1e-6"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()
    model = started("full")
    with torch.no_grad():
        model.loc[1] = 1e4
    with pytest.raises(ValueError, match="component 1 of 3 explains .* empty: start elsewhere"):
        list(fit_em(model, X))
