"""States that move by chosen maps, or by the time that has passed, against dense Gaussians and the sum over paths."""

from __future__ import annotations

import itertools
from functools import partial

import pyro
import pytest
import torch
from torch.nn import functional as F

from dlvm.guides import ExactPosterior
from dlvm.inference import ELBO, SVI, log_weights
from dlvm.models import LinearGaussianSSM, OrnsteinUhlenbeck, SwitchingSSM

STATES, STEPS = 2, 3
PATHS = F.one_hot(torch.tensor([*itertools.product(range(STATES), repeat=STEPS)]), STATES).double()
LENGTHS = torch.tensor([3, 1, 2])
TIMES = torch.tensor([[0.0, 0.3, 2.0], [5.0, 1.0, 0.0], [0.0, 7.0, float("nan")]]).double()  # within the lengths


def switching(**settings) -> SwitchingSSM:
    torch.manual_seed(0)
    return SwitchingSSM(STATES, 2, 3, **settings).double()


def process() -> OrnsteinUhlenbeck:
    torch.manual_seed(0)
    return OrnsteinUhlenbeck(2, 3).double()


def seen(seed: int = 1) -> torch.Tensor:
    return torch.randn(3, STEPS, 3, generator=torch.Generator().manual_seed(seed)).double()


def test_classes_are_summed_out_of_the_states_and_bayes_rule_holds_at_any_state():
    """p(z) p(x | z) of the program is the sum over paths of p(y) p(x | y) p(z | x, y), by Kalman's answers."""
    model, x = switching(), seen()[:1]
    z = torch.randn(1, STEPS, 2).double()
    trace = pyro.poutine.trace(pyro.condition(model, data={"z": z})).get_trace(x)
    prior = model.dynamics.prior(STEPS).log_prob(PATHS)
    given = model.posterior_given(x, PATHS).log_prob(z) + model.log_px_given(x, PATHS)
    torch.testing.assert_close(trace.log_prob_sum(), (prior + given).logsumexp(0))
    states = model.states_given(PATHS).log_prob(z)
    torch.testing.assert_close(model.classes_given(z).log_prob(PATHS), (prior + states).log_softmax(0))
    whole = pyro.condition(switching(sum_out=False), data={"z": z.expand(8, -1, -1), "y": PATHS})
    trace = pyro.poutine.trace(whole).get_trace(x.expand(8, -1, -1))
    trace.compute_log_prob()
    each = sum(trace.nodes[site]["log_prob"] for site in "xyz")
    torch.testing.assert_close(each, prior + given)


def test_states_given_classes_are_the_gaussian_that_steps_make():
    model, path = switching(), PATHS[5]
    net, scale = model.dynamics.likelihood.net, model.dynamics.likelihood.scale()
    mean, covariance = torch.zeros(2).double(), torch.zeros(2, 2).double()
    for t, now in enumerate(path.argmax(-1)):
        mean = net.weight[now] @ mean + net.own[now] + net.bias
        covariance = net.weight[now] @ covariance @ net.weight[now].T + scale.square().diag()
        torch.testing.assert_close(model.states_given(path).mean[t], mean)
        torch.testing.assert_close(model.states_given(path).covariances[0][t], covariance)


def test_the_process_is_a_gaussian_whose_correlation_is_told_by_the_time_between():
    model, times = process(), TIMES[:1]
    rate = model.log_rate.exp()
    apart = (times[0, :, None] - times[0]).abs()
    states = torch.stack([(-r * apart).exp() for r in rate], -1)  # (t, s, z)
    covariance = torch.einsum("tsz,az,bz->tasb", states, model.weight, model.weight).reshape(9, 9)
    noise = (2 * model.log_scale).exp().repeat(STEPS).diag()
    dense = torch.distributions.MultivariateNormal(model.loc.repeat(STEPS), covariance + noise)
    x = seen()[:1]
    torch.testing.assert_close(model.log_px(x, times=times), dense.log_prob(x.flatten(1)))
    holed = x.clone()
    holed[:, 1] = torch.nan
    two = model.log_px(x[:, [0, 2]], times=times[:, [0, 2]])
    torch.testing.assert_close(model.log_px(holed, times=times), two)  # what lies between is integrated out


def test_on_a_regular_grid_it_is_the_linear_gaussian_model():
    model, x = process(), seen()
    other = LinearGaussianSSM(2, 3).double()
    a = (-model.log_rate.exp()).exp()
    for name, value in {
        "first_loc": torch.zeros(2),
        "first_log_scale": torch.zeros(2),
        "transition": a.diag(),
        "log_drift": (1 - a.square()).log() / 2,
        "weight": model.weight,
        "loc": model.loc,
        "log_scale": model.log_scale,
    }.items():
        getattr(other, name).data = value.detach().double()
    torch.testing.assert_close(model.log_px(x, LENGTHS), other.log_px(x, LENGTHS))
    torch.testing.assert_close(model.posterior(x, LENGTHS).mean, other.posterior(x, LENGTHS).mean)
    grid = torch.arange(STEPS).double().expand(3, -1) + 10
    torch.testing.assert_close(model.log_px(x, LENGTHS, grid), model.log_px(x, LENGTHS))


def test_ragged_sequences_are_each_alone_and_weights_by_the_posterior_are_their_density():
    model, x = process(), seen()
    alone = torch.cat([model.log_px(x[i : i + 1, :n], times=TIMES[i : i + 1, :n]) for i, n in enumerate(LENGTHS)])
    blank = torch.where(torch.arange(STEPS)[:, None] < LENGTHS[:, None, None], x, torch.nan)
    torch.testing.assert_close(model.log_px(blank, LENGTHS, TIMES), alone)
    log_w = log_weights(model, model.guide, x, LENGTHS, TIMES, num_particles=2)
    torch.testing.assert_close(log_w, alone.expand(2, -1))
    other, drawn = switching(), torch.randn(3, STEPS, 2).double()
    path = PATHS[[1, 4, 6]]
    each = [other.log_px_given(x[i : i + 1, :n], path[i : i + 1, :n]) for i, n in enumerate(LENGTHS)]
    torch.testing.assert_close(other.log_px_given(blank, path, LENGTHS), torch.cat(each))
    joint = pyro.poutine.trace(pyro.condition(other, data={"z": drawn})).get_trace(blank, LENGTHS).log_prob_sum()
    rows = [
        pyro.poutine.trace(pyro.condition(other, data={"z": drawn[i : i + 1, :n]})).get_trace(x[i : i + 1, :n])
        for i, n in enumerate(LENGTHS)
    ]
    torch.testing.assert_close(joint, sum(row.log_prob_sum() for row in rows))


@pytest.mark.parametrize(
    "times, words",
    [
        ([[0.0, 2.0, 1.0]], "got 1 after 2 in step 2 of sequence 0; sort the steps by time"),
        ([[0.0, 0.0, 1.0]], "got 0 after 0 in step 1 of sequence 0; .* put what was seen at one time into one step"),
        ([[0.0, 1.0, float("nan")]], "got nan after 1 in step 2"),
        ([[0.0, 1.0]], r"times must have shape \(1, 3\), one for each step, got \(1, 2\)"),
    ],
)
def test_times_that_do_not_rise_are_refused(times, words):
    with pytest.raises(ValueError, match=words):
        process().log_px(seen()[:1], times=torch.tensor(times))


def test_captured_steps_are_the_eager_ones():
    left = []
    for engine in ("eager", "captured"):
        model, x = process(), seen()
        svi = SVI(model, ExactPosterior(model), partial(torch.optim.Adam, lr=1e-2), ELBO(), engine=engine)
        pyro.set_rng_seed(0)
        rising = torch.cumsum(torch.rand(3, STEPS).double() + 0.1, -1)
        losses = [svi.step(x, lengths, rising) for lengths in (LENGTHS, LENGTHS.flip(0))]
        left.append((losses, svi.running))
    assert left[1][1] == "captured" and left[0][0] == pytest.approx(left[1][0], rel=1e-10)
