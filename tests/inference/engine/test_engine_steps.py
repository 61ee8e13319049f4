"""Around the gradient: clipping, optimizers, audits, evaluation, weights that are computed."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from pairs import pair
from pyro.infer import Trace_ELBO
from stateful import anneal, stateful
from stepping import Adam, differing, run, same_by_both_engines
from torch import nn
from torch.nn.utils import parametrizations


def normed():
    """A weight whose singular vector is a buffer that moves at every step, a norm's weight, and a tied one."""
    model, guide, args = pair("positive")
    tied = nn.Linear(4, 4)
    first = parametrizations.spectral_norm(nn.Linear(2, 2))
    model.net = nn.Sequential(first, nn.Tanh(), parametrizations.weight_norm(nn.Linear(2, 4)), tied, nn.Tanh(), tied)
    return model, guide, args


def test_parametrised_and_tied_weights():
    captured = same_by_both_engines(normed, Trace_ELBO, 6)[1].state
    assert any("_u" in name for name in captured)


@pytest.mark.slow
@pytest.mark.parametrize("clip_norm", [0.5, 1e6])
def test_gradients_are_clipped_alike(clip_norm):
    eager, _ = same_by_both_engines(pair, Trace_ELBO, clip_norm=clip_norm)
    assert (differing(eager.state, run(pair, Trace_ELBO, "eager").state) != []) == (clip_norm == 0.5)


@pytest.mark.parametrize("held", [slice(0, 2), pytest.param(slice(-3, None), marks=pytest.mark.slow)])
def test_an_optimizer_may_hold_some_parameters_only(held):
    same_by_both_engines(pair, Trace_ELBO, optimizer=lambda parameters: Adam(list(parameters)[held]))


@pytest.mark.parametrize("between_audits", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_audits_leave_no_trace(between_audits, audited):
    audited(between_audits)
    same_by_both_engines(stateful, Trace_ELBO, 9, between=anneal)


@pytest.mark.slow
def test_losses_without_steps_are_those_of_the_eager_engine():
    """In both modes, with the state of the modules as it is now, and none of it moved by evaluation."""
    losses = {"eager": [], "captured": []}
    for engine, found in losses.items():

        def evaluate(step, svi, found=found):
            svi.model.train(step % 2 == 0)
            anneal(step, svi)
            found.append(svi.evaluate_loss(torch.ones(6, 4)))

        left = run(stateful, Trace_ELBO, engine, 8, between=evaluate)
        found.append(left.state)
    eager, captured = losses["eager"], losses["captured"]
    assert eager[:-1] == pytest.approx(captured[:-1], rel=1e-6) and differing(eager[-1], captured[-1]) == []


@pytest.mark.slow
def test_steps_are_skipped_alike():
    """Every third batch is far out: skipped by both engines, and by none where the threshold is above all gradients."""
    make, (x,) = partial(pair, "ppca"), pair("ppca")[2]
    skips: list[bool] = []

    def far(step, svi):
        skips.append(svi.skipped)
        return (x if step % 3 else 100 * x,)

    _, captured = same_by_both_engines(make, Trace_ELBO, 8, between=far, skip_norm=1e4)
    assert skips == [False, False, False, True, False, False, True, False] * 2
    lax, plain = (run(make, Trace_ELBO, "captured", 8, between=far, skip_norm=norm) for norm in (1e30, None))
    assert differing(lax.state, plain.state) == [] and differing(plain.state, captured.state) != []
