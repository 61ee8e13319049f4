"""Objectives with weights of zero, numbers of other kinds, and bounds in pieces."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close
from oracles.forcing import Forced, gradient
from switched import XS, Guide, Model, climbed

from dlvm.inference import CIWAE, ELBO, IWAE, TVO, VIMCO, MovingAverage, tempered
from dlvm.inference.bounds.derivatives import curvatures, left_out

pytestmark = pytest.mark.usefixtures("float64")


def test_the_gradient_is_finite_where_a_particle_has_no_weight():
    """Two particles of weight w, one of 0: signals log 2, log 2, log 2/3 and scores 1/2, 1/2, -1/2."""
    logit = torch.zeros(1, requires_grad=True)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.full((1,), 0.5)).to_event(1))
            pyro.factor("hard", torch.where(z.squeeze(-1) > 0, 0.0, -math.inf))
            pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=logit).to_event(1))

    drawn = Forced({"z": torch.tensor([1.0, 1.0, 0.0]).reshape(3, 1, 1)})
    found = -gradient(IWAE(3, VIMCO()).differentiable_loss(model, drawn(guide), XS[:1]), [logit])
    assert_close(found, [math.log(2) - math.log(2 / 3) / 2 - 0.5], 1e-12)


def test_bounds_of_a_weight_of_zero():
    log_w = torch.tensor([[0.0, 1.0], [-math.inf, 2.0]])
    assert TVO(2).bound(log_w)[0] == -math.inf
    assert TVO(2).bound(log_w)[1] == TVO(2).bound(log_w[:, 1:])
    assert torch.equal(CIWAE(0.0, 2).bound(log_w), IWAE(2).bound(log_w))
    assert CIWAE(0.5, 2).bound(log_w)[0] == -math.inf


def test_without_a_share_of_the_elbo_learning_signals_are_those_of_the_tight_bound():
    log_w = torch.tensor([[0.0], [1.0], [-math.inf]])
    assert torch.equal(CIWAE(0.0, 3).bound.signals(log_w), IWAE(3).bound.signals(log_w))
    assert torch.equal(CIWAE(0.0, 3).bound.left_out(log_w), IWAE(3).bound.left_out(log_w))


def test_a_moving_average_forgets_signals_that_are_not_finite():
    one, other = MovingAverage(), MovingAverage()
    signals = [torch.full((2, 3), value) for value in (1.0, -math.inf, 4.0, 2.0)]
    found = [one(signal, None)[0] for signal in signals]
    expected = [other(signal, None)[0] for signal in signals if signal.isfinite().all()]
    assert found[1].eq(-math.inf).all()
    for mine, theirs in zip((found[0], *found[2:]), expected, strict=True):
        assert torch.equal(mine, theirs)


def test_curvatures_and_left_out_bounds_are_the_same_in_pieces(monkeypatch):
    log_w, bound = torch.randn(7, 3), IWAE(7).bound
    whole = curvatures(bound, log_w), left_out(bound, log_w)
    for at_once in (1, 2 * log_w.numel(), 3 * log_w.numel() + 1):
        monkeypatch.setattr("dlvm.inference.bounds.derivatives.NUMBERS_AT_ONCE", at_once)
        for found, expected in zip((curvatures(bound, log_w), left_out(bound, log_w)), whole, strict=True):
            assert_close(found, expected, 1e-14)
    assert_close(whole[0], IWAE(7).bound.curvatures(log_w), 1e-12)
    assert_close(whole[1], IWAE(7).bound.left_out(log_w), 1e-12)


def test_numbers_of_numpy_are_numbers():
    assert IWAE(np.int64(5)).num_particles == 5
    model, guide = Model(), Guide()
    expected = climbed(tempered(ELBO(), 0.5), model, guide, XS)
    assert torch.equal(climbed(tempered(ELBO(), np.float32(0.5)), model, guide, XS), expected)
    assert torch.equal(climbed(tempered(ELBO(), torch.tensor(0.5)), model, guide, XS), expected)
