"""A sequence step by step has the density that it has at once, and states are picked among particles."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from dlvm.distributions import ConditionalChain, GaussianChain, MarkovChain, Normal
from dlvm.distributions.sequences.each_step import EachStep
from dlvm.distributions.sequences.steps import chain_steps, picked, spread
from dlvm.models import LinearGaussianSSM

STEPS, LENGTHS = 4, torch.tensor([4, 2, 3, 1, 4])


def ragged() -> Tensor:
    """Data of five sequences, with a hole, a step that was not seen, and anything behind the ends."""
    torch.manual_seed(1)
    x = torch.randn(5, STEPS, 3).double()
    x[0, 1, 2], x[4, 2], x[3, 2], x[1, 3] = torch.nan, torch.nan, torch.inf, torch.nan
    return x


@torch.no_grad()
def test_the_linear_gaussian_model_and_its_posterior_are_products_of_their_steps():
    torch.manual_seed(0)
    model, x, z = LinearGaussianSSM(2, 3).double(), ragged(), torch.randn(6, 5, STEPS, 2).double()
    prior, likelihood = model.stepwise(x, LENGTHS).densities(z)
    torch.testing.assert_close(prior.sum(-1), model.prior(STEPS, LENGTHS).log_prob(z))
    torch.testing.assert_close(likelihood.sum(-1), model.likelihood(z, LENGTHS).log_prob(x))
    posterior = model.posterior(x, LENGTHS)
    torch.testing.assert_close(chain_steps(posterior).densities(z)[0].sum(-1), posterior.log_prob(z))


@torch.no_grad()
def test_a_chain_with_inputs_and_what_is_seen_of_it_are_products_of_their_steps():
    torch.manual_seed(0)
    net, emission = nn.Linear(4, 2).double(), Normal(nn.Linear(2, 3), 3).double()
    inputs, z, x = torch.randn(5, STEPS, 2).double(), torch.randn(6, 5, STEPS, 2).double(), ragged()
    chain = ConditionalChain(
        lambda last, seen: dist.Normal(net(torch.cat([last, seen], -1)), 0.5).to_event(1),
        torch.ones(2).double(),
        STEPS,
        inputs,
        LENGTHS,
    )
    found, seen = chain_steps(chain, emission, x).densities(z)
    torch.testing.assert_close(found, chain.densities(z))
    torch.testing.assert_close(seen, EachStep(emission(z), LENGTHS).densities(x))
    assert chain_steps(chain).densities(z)[1] is None


def test_states_go_with_the_particles_that_are_chosen_for_each_sequence():
    state = (torch.arange(6.0).view(3, 2), torch.arange(12.0).view(3, 2, 2))
    ancestors = torch.tensor([[2, 0], [0, 0], [2, 1]])
    one, two = picked(state, ancestors)
    assert one.tolist() == [[4.0, 1.0], [0.0, 1.0], [4.0, 3.0]]
    assert two[:, 0].tolist() == [[8.0, 9.0], [0.0, 1.0], [8.0, 9.0]]
    assert spread(torch.zeros(2, 3), (5,)).shape == (5, 2, 3)


def test_what_has_no_steps_is_refused_in_words():
    half = torch.full((2, 2), 0.5).log()
    with pytest.raises(TypeError, match="chain must be a ConditionalChain.*stepwise"):
        chain_steps(MarkovChain(half[0], half, torch.zeros(3, 2)))
    one = torch.eye(2).expand(1, 3, 2, 2)
    steps = chain_steps(GaussianChain(torch.zeros(1, 3, 2), one, 0 * one[:, 1:]))
    with pytest.raises(ValueError, match="steps of a guide"):
        steps.log_x_given(steps.start, torch.zeros(1, 2), 0)
