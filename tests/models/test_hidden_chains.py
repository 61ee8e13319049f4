"""Hidden Markov models whose steps depend on the last one, or on several classes, against the sum over all paths."""

from __future__ import annotations

import itertools
from functools import partial

import pyro
import pytest
import torch
from torch.nn import functional as F

from dlvm.distributions import Bernoulli, Normal
from dlvm.guides import FullyObserved
from dlvm.inference import ELBO, SVI, fit_em, log_weights
from dlvm.models import AutoregressiveHMM, BernoulliMixture, FactorialHMM, HiddenMarkov
from dlvm.nets import MLP, SwitchingDiagonal, SwitchingLinear

STATES, STEPS, WIDTH = 2, 4, 3
LENGTHS = torch.tensor([4, 2, 3, 1, 4])


def autoregressive(seed: int = 0, **settings) -> AutoregressiveHMM:
    torch.manual_seed(seed)
    return AutoregressiveHMM(STATES, WIDTH, Bernoulli(SwitchingDiagonal(STATES, WIDTH)), **settings).double()


def neural(seed: int = 0, **settings) -> AutoregressiveHMM:
    torch.manual_seed(seed)
    return AutoregressiveHMM(STATES, WIDTH, Bernoulli(MLP(STATES + WIDTH, 5, WIDTH)), **settings).double()


def factorial(seed: int = 0, **settings) -> FactorialHMM:
    torch.manual_seed(seed)
    return FactorialHMM(2, STATES, BernoulliMixture(STATES**2, WIDTH), **settings).double()


EVERY = [autoregressive, neural, factorial]


def chorale(seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.rand(5, STEPS, WIDTH).gt(0.5).double()


def paths(model, steps: int) -> torch.Tensor:
    """Every z of a sequence of so many steps."""
    event = model.prior(steps).event_shape[1:]
    numbers = torch.tensor([*itertools.product(range(STATES), repeat=steps * event[:-1].numel())])
    return F.one_hot(numbers, STATES).double().view(-1, steps, *event)


def by_paths(make, x: torch.Tensor) -> torch.Tensor:
    """log p(x, z) of one whole sequence and every path, by the program itself with z observed."""
    model = make(sum_out=False)
    every = paths(model, len(x))
    trace = pyro.poutine.trace(pyro.condition(model, data={"z": every})).get_trace(x.expand(len(every), -1, -1))
    trace.compute_log_prob()
    return trace.nodes["z"]["log_prob"] + trace.nodes["x"]["log_prob"]


@pytest.mark.parametrize("make", EVERY)
def test_the_density_is_the_sum_over_all_paths_and_the_posterior_is_theirs(make):
    model, x = make(), chorale()[0]
    joint, every = by_paths(make, x), paths(model, STEPS)
    posterior = model.posterior(x[None])
    torch.testing.assert_close(model.log_px(x[None])[0], joint.logsumexp(0))
    torch.testing.assert_close(posterior.log_prob(every), joint - joint.logsumexp(0))
    torch.testing.assert_close(posterior.mode[0], every[joint.argmax()])
    torch.testing.assert_close(posterior.marginals[0], torch.einsum("p,p...->...", joint.softmax(0), every))
    torch.testing.assert_close(pyro.poutine.trace(model).get_trace(x[None]).log_prob_sum(), joint.logsumexp(0))


@pytest.mark.parametrize("make", EVERY)
def test_a_ragged_batch_is_each_sequence_alone_and_what_lies_behind_does_not_count(make):
    model, x = make(), chorale()
    alone = torch.stack([by_paths(make, row[:length]).logsumexp(0) for row, length in zip(x, LENGTHS, strict=True)])
    torch.testing.assert_close(model.log_px(x, LENGTHS), alone)
    behind = torch.arange(STEPS)[:, None] >= LENGTHS[:, None, None]
    blank = torch.where(behind, torch.nan, x)
    torch.testing.assert_close(model.log_px(blank, LENGTHS), alone)
    torch.testing.assert_close(pyro.poutine.trace(model).get_trace(blank, LENGTHS).log_prob_sum(), alone.sum())
    log_w = log_weights(make(sum_out=False), make(sum_out=False).guide, x, LENGTHS, num_particles=3)
    torch.testing.assert_close(log_w, alone.expand(3, -1))  # by the exact posterior every weight is p(x)


@pytest.mark.parametrize("make", EVERY)
def test_draws_have_the_density_that_is_said_of_them(make):
    model = make()
    pyro.set_rng_seed(0)
    x = model(n=4000, steps=2)
    every = torch.tensor([*itertools.product([0.0, 1.0], repeat=2 * WIDTH)]).double().view(-1, 2, WIDTH)
    p = model.log_px(every).exp()
    torch.testing.assert_close(p.sum(), torch.ones(()).double())
    seen = (x.flatten(1) @ (2.0 ** torch.arange(2 * WIDTH - 1, -1, -1)).double()).long().bincount(minlength=len(p))
    assert ((seen - 4000 * p).square() / (4000 * p)).sum() < 110  # 63 degrees of freedom: 4 in 10 000 lie above


def test_without_influence_of_the_last_step_it_is_the_hidden_markov_model():
    model, x = autoregressive(), chorale()
    plain = HiddenMarkov(BernoulliMixture(STATES, WIDTH)).double()
    with torch.no_grad():
        net = model.likelihood.net
        net.weight.zero_()
        plain.mixture.pixel_logits.copy_(net.own + net.bias)
        plain.mixture.logits.copy_(model.initial_logits)
        plain.transition_logits.copy_(model.transition_logits)
    torch.testing.assert_close(model.log_px(x, LENGTHS), plain.log_px(x, LENGTHS))


def test_a_step_that_was_not_seen_is_summed_out_over_several_chains_and_refused_where_the_next_depends_on_it():
    model, x = factorial(), chorale()[:1]
    every = torch.tensor([*itertools.product([0.0, 1.0], repeat=WIDTH)]).double()
    filled = x.repeat(len(every), 1, 1)
    filled[:, 2] = every
    x[:, 2] = torch.nan
    torch.testing.assert_close(model.log_px(x)[0], model.log_px(filled).logsumexp(0))
    with pytest.raises(ValueError, match="x has 1 steps .* missing, and the step after one .* fill steps in, or cut"):
        autoregressive().log_px(x)


def test_a_step_of_em_over_several_chains_is_that_of_the_paths_one_by_one():
    model, x = factorial(), chorale()
    shares = torch.stack([by_paths(factorial, row).softmax(0) for row in x])
    every = paths(model, STEPS)
    z = torch.einsum("np,ptci->ntci", shares, every)
    moves = torch.einsum("np,ptci,ptcj->cij", shares, every[:, :-1], every[:, 1:])
    joint = torch.einsum("np,pti,ptj->ntij", shares, *every.unbind(-2)).flatten(-2)
    before = model.log_px(x).sum()
    list(fit_em(model, x, iterations=1))
    assert model.log_px(x).sum() > before
    torch.testing.assert_close(model.initial_logits.softmax(-1), z[:, 0].mean(0))
    torch.testing.assert_close(model.transition, moves / moves.sum(-1, keepdim=True))
    ones = torch.einsum("nti,ntd->id", joint, x) / joint.sum((0, 1))[:, None]
    torch.testing.assert_close(model.mixture.probabilities, ones.clamp(1e-3, 1 - 1e-3))


def test_a_vector_autoregression_that_switches_is_a_normal_of_each_step_where_one_state_is_left():
    torch.manual_seed(0)
    model = AutoregressiveHMM(1, 2, Normal(SwitchingLinear(1, 2, 2), 2)).double()
    x = torch.randn(3, 5, 2).double()
    last = F.pad(x[:, :-1], (0, 0, 1, 0))
    steps = model.likelihood(torch.ones(1).double(), last).log_prob(x)
    torch.testing.assert_close(model.log_px(x), steps.sum(-1))


@pytest.mark.parametrize("make", [autoregressive, *(pytest.param(m, marks=pytest.mark.slow) for m in EVERY[1:])])
def test_captured_steps_are_the_eager_ones_over_batches_of_other_lengths(make):
    left = []
    for engine in ("eager", "captured"):
        model, x = make(), chorale()
        svi = SVI(model, FullyObserved(), partial(torch.optim.Adam, lr=1e-2), ELBO(), engine=engine)
        losses = [svi.step(x, lengths) for lengths in (LENGTHS, LENGTHS.flip(0), LENGTHS.clamp_max(3))]
        left.append((losses, [p.detach().clone() for p in model.parameters()], svi.running))
    assert left[1][2] == "captured" and left[0][0] == pytest.approx(left[1][0], rel=1e-10)
    assert all(torch.equal(a, b) for a, b in zip(left[0][1], left[1][1], strict=True))


def test_a_likelihood_that_is_none_of_a_step_is_refused():
    with pytest.raises(TypeError, match="likelihood Bernoulli must take z and the last x, got .*; write Bernoulli"):
        AutoregressiveHMM(2, 3, Bernoulli(MLP(4, 3)))
    with pytest.raises(ValueError, match=r"batch shape \(2,\) and event shape \(3,\) .* got \(2,\) and \(4,\)"):
        AutoregressiveHMM(2, 3, Bernoulli(MLP(5, 4)))
    with pytest.raises(ValueError, match=r"components must be states\^chains = 9, one for each joint class, got 6"):
        FactorialHMM(2, 3, BernoulliMixture(6, 4))
