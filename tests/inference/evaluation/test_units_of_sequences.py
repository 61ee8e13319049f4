"""Units of steps behind a sequence's end are none: neither active nor asleep."""

from __future__ import annotations

import pyro
import torch

from dlvm.distributions import ConditionalChain, GatedTransition, Normal
from dlvm.inference import evaluate
from dlvm.inference.evaluation.active_units import Lookout
from dlvm.inference.programs.pair import Pair
from dlvm.models import DeepMarkov
from dlvm.nets import MLP

STEPS, ROWS = 4, 40


def asleep(level: float):
    """A pair whose guide says the same of every sequence, at ``level``, and ragged data."""
    pyro.set_rng_seed(0)
    model = DeepMarkov(2, Normal(MLP(2, 4), 3), GatedTransition(2, 4))

    def guide(x, lengths):
        start = torch.zeros(len(x), 2)

        def step(z):
            return pyro.distributions.Normal(torch.full_like(z, level), 0.1).to_event(1)

        with pyro.plate("data", len(x)):
            pyro.sample("z", ConditionalChain(step, start, x.shape[1], lengths=lengths))

    return model, guide, (torch.randn(ROWS, STEPS, 3), torch.arange(ROWS) % STEPS + 1)


def test_a_guide_that_says_nothing_has_no_active_unit_however_long_sequences_are():
    """Zeros behind the end beside 3 within it varied over data by far more than 0.01."""
    model, guide, args = asleep(3.0)
    found = evaluate(model, guide, [args], num_particles=20)
    assert found.active_units == 0 and found.units == 2 * STEPS
    assert Lookout(Pair(model, guide), args).look(False) == {"z": (0, 2 * STEPS)}


def test_units_of_single_draws_are_counted_over_the_data_that_have_them():
    model, guide, (x, lengths) = asleep(3.0)

    def telling(x, lengths):
        start = torch.zeros(len(x), 2)
        with pyro.plate("data", len(x)):
            seen = ConditionalChain(
                lambda z, h: pyro.distributions.Normal(h, 0.1).to_event(1), start, x.shape[1], x[..., :2], lengths
            )
            pyro.sample("z", seen)

    found = evaluate(model, telling, [(x, lengths)], num_particles=20)
    assert found.active_units == 2 * STEPS == found.units
