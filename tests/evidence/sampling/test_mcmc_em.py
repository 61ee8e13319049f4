"""MCMC-EM: its gradient is that of log p(x), it comes to the closed form's maximum, goes on where it was left."""

from __future__ import annotations

from functools import partial

import pyro
import pytest
import torch
from oracles import assert_close

from dlvm.evidence import PosteriorChains, fit_mcmc_em
from dlvm.inference import NonFinite
from dlvm.models import PPCA

draw = torch.Generator().manual_seed(3)
X = torch.randn(200, 2, generator=draw) @ torch.randn(2, 4, generator=draw) * 1.5
X = X + 0.5 * torch.randn(200, 4, generator=draw) + 1
Quick = partial(torch.optim.Adam, lr=0.05)


def started(scale=1.0):
    weight = torch.randn(4, 2, generator=torch.Generator().manual_seed(5))
    return PPCA(weight, torch.zeros(4), scale)


@pytest.mark.slow
def test_it_comes_near_the_exact_maximum():
    """Within what Monte Carlo noise leaves: a hundredth of a nat of 8, from 10 nats below."""
    model, best = started(), PPCA.maximum_likelihood(X, 2).log_px(X).mean().item()
    before = model.log_px(X).mean().item()
    chains = PosteriorChains(model, X, num_chains=4, leaps=5, engine="captured")
    for rate in (0.05, 0.01):
        list(fit_mcmc_em(chains, 40, 50, optimizer=partial(torch.optim.Adam, lr=rate), seed=0))
    after = model.log_px(X).mean().item()
    assert before < best - 3 and best - 0.02 < after <= best + 1e-5


def test_its_gradient_is_that_of_log_px_where_chains_have_arrived():
    """Fisher's identity, within standard errors over independent chains."""
    pyro.set_rng_seed(0)
    model, x = started(0.8), X[:3]
    model.log_px(x).sum().backward()
    exact = model.weight.grad.clone()
    model.weight.grad = None
    chains = PosteriorChains(model, x, num_chains=3000, leaps=5)
    chains.move(60)
    z = chains.values()["z"]
    each = (x - z @ model.weight.T - model.loc).detach() / model.scale.detach() ** 2
    slopes = torch.einsum("cni,cnj->cij", each, z)
    error = (slopes.var(0) / 3000).sqrt()
    assert ((slopes.mean(0) - exact) / error).abs().max() < 4.5

    held = model.weight.detach().clone()
    list(fit_mcmc_em(chains, 1, 3, optimizer=partial(torch.optim.SGD, lr=1e-3), seed=0))
    assert ((model.weight.detach() - held) / 1e-3 - exact).abs().div(error).max() < 4.5


def test_epochs_in_two_calls_are_those_in_one():
    found = []
    for calls in ((4,), (2, 2)):
        model = started()
        pyro.set_rng_seed(7)
        chains = PosteriorChains(model, X, engine="eager")
        records = [r for epochs in calls for r in fit_mcmc_em(chains, epochs, 80, optimizer=torch.optim.SGD)]
        found.append((model.weight.detach(), records[-1]))
    assert_close(found[0][0], found[1][0], 0)
    assert found[0][1].log_joint == found[1][1].log_joint and "log p(x, u)" in str(found[0][1])


def test_captured_steps_are_eager_ones():
    found = []
    for engine in ("eager", "captured"):
        model = started()
        pyro.set_rng_seed(7)
        chains = PosteriorChains(model, X, engine=engine)
        list(fit_mcmc_em(chains, 3, 64, optimizer=partial(torch.optim.SGD, lr=1e-3), seed=1))
        found.append(model.weight.detach())
    assert_close(*found, 1e-5)


def test_a_seed_is_a_stream_of_its_own():
    model = started()
    chains = PosteriorChains(model, X)
    before = torch.get_rng_state()
    list(fit_mcmc_em(chains, 1, seed=3))
    assert torch.equal(before, torch.get_rng_state())


def test_refusals_name_the_remedy():
    fixed = started()
    for parameter in fixed.parameters():
        parameter.requires_grad_(False)

    def function(x):
        return started()(x)

    cases = [
        (lambda: fit_mcmc_em(started()), TypeError, "PosteriorChains"),
        (lambda: fit_mcmc_em(PosteriorChains(started(), X), epochs=0), ValueError, "epochs"),
        (lambda: fit_mcmc_em(PosteriorChains(fixed, X)), ValueError, "requires a gradient"),
        (lambda: fit_mcmc_em(PosteriorChains(function, X)), TypeError, "PyroModule"),
    ]
    for call, kind, words in cases:
        with pytest.raises(kind, match=words):
            call()


def test_a_rate_that_is_far_too_large_is_told():
    chains = PosteriorChains(started(), X)
    with pytest.raises((NonFinite, ValueError), match="rate|finite|NaN"):
        list(fit_mcmc_em(chains, 20, optimizer=partial(torch.optim.SGD, lr=1e6)))
