"""Chains by a net from step to step, and what is seen at each step, against linear dynamics and hand loops."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from dlvm.distributions import ConditionalChain, DiagonalNormal, EachStep, OneHotCategorical
from dlvm.inference.programs.data_checks import DataCheck
from dlvm.inference.programs.pair import Pair, draws_nothing
from dlvm.models import LinearGaussianSSM

STEPS, DIM = 5, 2
LENGTHS = torch.tensor([5, 1, 3])


@pytest.fixture(scope="module")
def model() -> LinearGaussianSSM:
    """Whose first state is a step from 0 as well, so that its prior is such a chain."""
    torch.manual_seed(0)
    found = LinearGaussianSSM(DIM, 3).double()
    found.first_log_scale.data.copy_(found.log_drift)
    return found


def dynamics(model: LinearGaussianSSM, lengths: Tensor | None = None) -> ConditionalChain:
    def step(z: Tensor) -> dist.Distribution:
        return dist.Normal(z @ model.transition.T, model.log_drift.exp()).to_event(1)

    return ConditionalChain(step, torch.zeros(DIM).double(), STEPS, lengths=lengths)


def test_the_density_is_that_of_linear_dynamics_and_so_are_moments_of_draws(model):
    z = torch.randn(4, 3, STEPS, DIM).double()
    found, exact = dynamics(model, LENGTHS), model.prior(STEPS, LENGTHS)
    torch.testing.assert_close(found.log_prob(z), exact.log_prob(z))
    pyro.set_rng_seed(0)
    draws = found.sample((20000,))
    spread = exact.variance[0, -1]
    assert (draws[:, 1, 1:] == 0).all() and (draws[:, 2, 3:] == 0).all()
    assert ((draws[:, 0, -1].var(0) - spread).abs() < 4 * spread * (2 / 20000) ** 0.5).all()
    ahead = model.transition @ exact.covariances[0][0, 0]
    covariance = draws[:, 0, 1].T @ draws[:, 0, 0] / 20000
    assert ((covariance - ahead).abs() < 0.01).all()


def test_what_stands_behind_a_sequence_counts_nothing_and_has_no_gradient():
    torch.manual_seed(0)
    net = DiagonalNormal(nn.Linear(DIM + 4, 8), DIM)
    inputs = torch.randn(3, STEPS, 4)

    def chain(rows: Tensor | slice = slice(None), steps: int = STEPS, lengths: Tensor | None = None):
        return ConditionalChain(
            lambda z, h: net(torch.cat([z, h], -1)), torch.zeros(DIM), steps, inputs[rows, :steps], lengths
        )

    z = torch.randn(3, STEPS, DIM)
    alone = torch.stack([chain(i, n).log_prob(z[i, :n]) for i, n in enumerate(LENGTHS.tolist())])
    z[1, 1:], z[2, 3:] = 1e9, -1e9
    z.requires_grad_()
    found = chain(lengths=LENGTHS)
    torch.testing.assert_close(found.log_prob(z), alone)
    assert (found.densities(z)[1, 1:] == 0).all()
    slope = torch.autograd.grad(found.log_prob(z).sum(), [z, *net.parameters()])
    assert all(each.isfinite().all() for each in slope) and (slope[0][1, 1:] == 0).all()
    torch.testing.assert_close(found.expand((7, 3)).log_prob(z)[4], alone)


def test_a_draw_follows_the_steps_and_carries_the_gradient():
    torch.manual_seed(0)
    inputs = torch.randn(6, STEPS, DIM, requires_grad=True)
    found = ConditionalChain(
        lambda z, h: dist.Normal(0.5 * z + h, 1e-6).to_event(1), torch.ones(6, DIM), STEPS, inputs, torch.full((6,), 4)
    )
    z, last = found.rsample(), torch.ones(6, DIM)
    for t in range(4):
        last = 0.5 * last + inputs[:, t]
        torch.testing.assert_close(z[:, t], last, atol=1e-4, rtol=0)
    (slope,) = torch.autograd.grad(z[:, 3].sum(), inputs)
    torch.testing.assert_close(slope[0, :, 0], torch.tensor([0.125, 0.25, 0.5, 1.0, 0.0]))


def test_steps_that_are_seen_are_those_of_the_linear_model_with_holes(model):
    torch.manual_seed(0)
    z, x = torch.randn(3, STEPS, DIM).double(), torch.randn(3, STEPS, 3).double()
    x[0, 2], x[2, 1, 0], x[1, 3] = torch.nan, torch.nan, torch.inf
    steps = dist.Normal(z @ model.weight.T + model.loc, model.log_scale.exp()).to_event(1)
    found = EachStep(steps, LENGTHS)
    exact = model.likelihood(z, LENGTHS).log_prob(x.nan_to_num(posinf=0.0, nan=torch.nan))
    torch.testing.assert_close(found.log_prob(x), exact)
    assert (found.densities(x)[1, 1:] == 0).all() and found.densities(x)[0, 2] == 0
    assert (found.mean[1, 1:] == 0).all() and (found.sample()[2, 3:] == 0).all()
    assert found.event_mask is not None and found.event_mask.sum() == 9 * 3
    torch.testing.assert_close(found.expand((4, 3)).log_prob(x)[1], exact)


def test_a_step_outside_the_support_is_refused_where_it_counts_alone():
    likelihood = OneHotCategorical(nn.Linear(DIM, 4))
    x = torch.eye(4)[:3].expand(2, 3, 4).clone()
    x[1, 2] = 7.0
    found = EachStep(likelihood(torch.zeros(2, 3, DIM)), torch.tensor([3, 2]))
    torch.testing.assert_close(found.log_prob(x)[1], found.densities(x)[1, :2].sum())
    x[0, 1] = 7.0
    with pytest.raises(ValueError, match="support"):
        found.log_prob(x)


@pytest.mark.parametrize("rows", [2, 3])
def test_every_batch_is_held_against_the_lengths_of_its_own(rows):
    """Of as many steps as the first, but other lengths, and of fewer sequences."""

    def model(x: Tensor, lengths: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", EachStep(dist.Gamma(torch.ones(len(x), 3, 2), 1.0).to_event(1), lengths), obs=x)

    first, second = torch.ones(3, 3, 2), torch.ones(rows, 3, 2)
    first[1:, 2], second[0, 1:] = -1.0, -1.0
    check = DataCheck(Pair(model, draws_nothing), (first, torch.tensor([3, 2, 2])))
    check((second, torch.tensor([1, 3, 3])[:rows]))
    with pytest.raises(ValueError, match="outside its likelihood's support"):
        check((second, torch.tensor([2, 3, 3])[:rows]))
