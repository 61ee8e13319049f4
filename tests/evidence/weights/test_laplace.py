"""Laplace's posterior of weights: exact where it is Gaussian, near elsewhere, refused where there is none."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import assert_close
from pyro.infer.autoguide import AutoDelta, AutoNormal
from torch import nn

from dlvm.distributions import Bernoulli, Categorical, FixedScale, Normal
from dlvm.evidence import laplace, posterior_predictive, weight_posterior
from dlvm.evidence.weights import laplace as method
from dlvm.guides import Diagonal, WithGlobals, latents, local_sites
from dlvm.inference import log_px
from dlvm.models import VAE, Bayesian, Conditional
from dlvm.nets import MLP

F = torch.tensor([[1.0, 0.2], [0.5, -0.7], [-0.4, 1.3], [0.8, 0.4], [-1.2, -1.1], [0.1, 0.9]], dtype=torch.float64)
Y = torch.tensor([0.3, -1.0, 1.7, 0.1, -0.4, 0.8], dtype=torch.float64)[:, None]
LABELS = torch.tensor([0, 1, 1, 0, 1, 0])


def classes(width: int = 2, *hidden: int, num_data: int = 6) -> tuple[Bayesian, WithGlobals]:
    torch.manual_seed(0)
    model = Bayesian(Conditional(Categorical(MLP(width, *hidden, 2, activation=nn.Tanh))), num_data)
    return model, WithGlobals(None, model, AutoDelta, F[:, :width].to(torch.get_default_dtype()), LABELS)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("size", [6, 4])
def test_of_linear_regression_it_is_the_posterior_itself(size: int) -> None:
    """Whatever the point that it starts from, and however data are cut into batches."""
    torch.manual_seed(0)
    model = Bayesian(Conditional(Normal(MLP(2), 1, scale=FixedScale(0.5))), 6, 0.8)
    guide = WithGlobals(None, model, AutoDelta, F, Y)
    found, exact = (
        laplace(model, guide, list(zip(F.split(size), Y.split(size), strict=True))),
        weight_posterior(model, F, Y),
    )
    q = found.guide.shared.get_posterior()
    assert_close(q.mean, exact.loc, 1e-8)
    assert_close(q.covariance_matrix, exact.covariance, 1e-8)
    assert found.log_evidence == pytest.approx(exact.log_evidence, abs=1e-8) and found.num_data == 6
    torch.manual_seed(1)
    predicted = log_px(*posterior_predictive(model, found.guide), (F, Y), 2000, 0).log_px
    assert_close(predicted, exact.log_px(F, Y), 0.1)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("rows", [256, 4, 1])
def test_curvature_of_classes_is_autograds_however_many_rows_are_found_at_a_time(monkeypatch, rows: int) -> None:
    monkeypatch.setattr(method, "ROWS", rows)
    model, _ = classes()
    w = torch.linspace(-1, 1, 6)
    expected = torch.autograd.functional.hessian(lambda w: method._log_joint(model, w, (F, LABELS)), w)
    _, gradient, found = method._derivatives(model, w, [(F[:2], LABELS[:2]), (F[2:], LABELS[2:])])
    assert_close(found, -expected, 1e-10)
    assert gradient.shape == (6,) and found.diagonal().min() > 0


@pytest.mark.usefixtures("float64")
def test_of_logistic_regression_evidence_is_near_that_of_a_grid() -> None:
    """Four weights, of which two differences count: w_1 - w_0 and b_1 - b_0, each N(0, 2)."""
    model, guide = classes(1)
    found = laplace(model, guide, [(F[:, :1], LABELS)])
    side = torch.linspace(-9, 9, 181)
    w, b = torch.meshgrid(side, side, indexing="ij")
    sign = 2.0 * LABELS - 1
    log_p = nn.functional.logsigmoid(sign[:, None, None] * (F[:, :1, None] * w + b)).sum(0)
    log_prior = -(w.square() + b.square()) / 4 - math.log(4 * math.pi)
    exact = (log_p + log_prior).flatten().logsumexp(0) + 2 * math.log(0.1)
    assert abs(found.log_evidence - exact.item()) < 0.1
    trained = found.guide.shared.get_posterior()
    assert trained.mean.abs().max() > 0.1 and found.log_evidence < found.log_joint + 4


def test_what_has_no_such_posterior_is_refused() -> None:
    model, guide = classes()
    with pytest.raises(ValueError, match="data must hold the 6 data that the model is of, got 5"):
        laplace(model, guide, [(F[:5].float(), LABELS[:5])])
    deep = classes(2, 4)
    with pytest.raises(ValueError, match="not concave in the weights"):
        laplace(*deep, [(F.float(), LABELS)])
    x = torch.eye(4)
    vae = Bayesian(VAE(2, Bernoulli(MLP(2, 4))), 4)
    local = Diagonal(local_sites(latents(vae, x)), MLP(4, 3))
    with pytest.raises(ValueError, match="no latents of each datum"):
        laplace(vae, WithGlobals(local, vae, AutoNormal, x), [x])
