"""Objectives and estimators on a chain of three states, held against the gradient of the ELBO in closed form."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from torch import Tensor
from walks import Walk, data, pair

from dlvm.inference import ELBO, IWAE, STL, TVO, DReG, Estimator, Objective, Total
from dlvm.inference.programs.pair import Pair
from dlvm.models import LinearGaussianSSM

ROWS, PARTS = 20_000, 20


def closed_form(model: LinearGaussianSSM, guide: Walk, x: Tensor) -> Tensor:
    """The ELBO of one sequence, shape (steps, 2): q is a joint Gaussian, log p(x, z) a quadratic form in z."""
    steps, (by_last, by_x) = len(x), guide.net.weight[0].split([1, 2])
    offsets = x @ by_x + guide.net.bias
    moves = torch.eye(steps).double() - by_last * torch.diag(torch.ones(steps - 1).double(), -1)
    inverse = torch.linalg.inv(moves)
    mean, cov = inverse @ offsets, guide.log_scale.exp() ** 2 * inverse @ inverse.T
    prior = model.prior(steps)
    first = (
        prior.log_prob(mean[:, None]),
        torch.autograd.functional.hessian(lambda z: prior.log_prob(z[:, None]), mean),
    )
    expected = first[0] + 0.5 * (first[1].detach() * cov).sum()
    noise = model.log_scale.exp()
    seen = -0.5 * ((x - mean[:, None] * model.weight[:, 0] - model.loc) / noise).square().sum()
    seen = seen - 0.5 * (cov.diagonal()[:, None] * (model.weight[:, 0] / noise).square()).sum()
    seen = seen - steps * (model.log_scale.sum() + math.log(2 * math.pi))
    entropy = 0.5 * steps * (1 + math.log(2 * math.pi)) + 0.5 * torch.logdet(cov)
    return expected + seen + entropy


def slope(objective: Objective, steps: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Values, the guide's gradient by many draws, and its standard error."""
    (model, guide), x = pair(), data(1, steps)
    found, values = [], []
    pyro.set_rng_seed(3)
    for _ in range(PARTS):
        rows = x.expand(ROWS // PARTS, -1, -1)
        loss = objective.surrogate(objective.draw(Pair(model, guide), (rows,), {}))
        found.append(torch.autograd.grad(loss, guide.net.weight)[0][0] / len(rows))
        values.append(-objective.loss(model, guide, rows) / len(rows))
    each = torch.stack(found)
    return torch.tensor(values), each.mean(0), each.std(0) / PARTS**0.5


def wanted(steps: int = 3) -> tuple[Tensor, Tensor]:
    (model, guide), x = pair(), data(1, steps)
    elbo = closed_form(model, guide, x[0])
    return elbo.detach(), torch.autograd.grad(elbo, guide.net.weight)[0][0]


@pytest.mark.parametrize("estimator", [pytest.param(Total(), marks=pytest.mark.slow), STL()])
def test_pathwise_gradients_of_the_elbo_are_those_of_its_closed_form(estimator: Estimator):
    elbo, exact = wanted()
    values, mean, se = slope(ELBO(1, estimator))
    sign = torch.sign((mean * exact).sum())  # of a loss or of a bound
    assert abs(float(values.mean()) - float(elbo)) < 4 * float(values.std()) / PARTS**0.5 < 0.3
    assert ((sign * mean - exact).abs() < 4 * se + 1e-9).all() and (se < 0.1 * exact.abs().max()).all()


@pytest.mark.slow
def test_two_estimators_of_iwae_agree_on_a_chain_and_differ_from_the_elbos():
    _, total, total_se = slope(IWAE(4, Total()))
    _, doubly, doubly_se = slope(IWAE(4, DReG()))
    assert ((total - doubly).abs() < 4 * (total_se.square() + doubly_se.square()).sqrt()).all()
    assert (doubly_se < total_se).all()
    assert ((doubly - wanted()[1]).abs() > 4 * doubly_se).any()


@pytest.mark.slow
def test_tvo_lies_between_the_elbo_and_the_exact_value():
    (model, _), x = pair(), data(1, 3)
    value = slope(TVO(16, 5))[0].mean()
    assert wanted()[0] + 0.01 < value < model.log_px(x)[0] + 0.01
