"""The answers themselves: held against Pyro alone, before anything of the laboratory is asked."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from pyro.infer import SVI

from programs import programs
from programs.alone import evaluating, every_batch, quiet
from programs.brought import Brought, arguments

PROGRAMS = programs()
PARTICLES = 300
BROKEN_IN_STOCK = {"no_gradient_anywhere", "one_row_left_and_batch_norm", "token_out_of_range"}
NO_EVIDENCE = {"annealed_inside", "scaled_in_the_model_alone"}
WRONG_BY_NATURE = {"masked_in_the_model_alone", "vae_of_grey_pixels", "token_out_of_range", *NO_EVIDENCE}


def answered(program: Brought) -> bool:
    return program.name not in WRONG_BY_NATURE


@pytest.mark.slow  # it holds the programs of these tests to account, and nothing of the laboratory
@pytest.mark.parametrize("program", [p for p in PROGRAMS if answered(p)], ids=str)
def test_the_answer_is_what_pyro_weighs_one_particle_at_a_time(program):
    pair = program.pair()
    with evaluating(pair):
        log_w = every_batch(pair, 3 if pair.exact else PARTICLES)
    if pair.exact:
        assert log_w.sum(1).tolist() == pytest.approx([pair.log_px.sum().item()] * 3, abs=2e-4 * pair.num_data)
        return
    if pair.plate is None:
        log_w = log_w.sum(1, keepdim=True)
    share = (log_w - log_w.logsumexp(0)).exp()
    bias = (share.square().sum(0) - 1 / len(log_w)).clamp_min(0)  # relative variance of the mean weight
    found = log_w.logsumexp(0) - math.log(len(log_w))
    error = (found.sum() - pair.log_px.sum()).item()
    assert abs(error) < 4 * bias.sum().sqrt().item() + bias.sum().item() + 1e-3
    assert bias.max() < 0.25, "too few particles to tell"


def test_answers_that_differ_between_data_are_per_datum():
    """A mean that is right says nothing of its terms: where the guide is exact, each datum's weight is its p(x)."""
    for program in PROGRAMS:
        pair = program.pair()
        if answered(program) and pair.exact and pair.plate and pair.per_datum:
            with evaluating(pair):
                assert torch.allclose(every_batch(pair, 1)[0], pair.log_px.double(), atol=1e-3), str(program)


@pytest.mark.parametrize("program", [p for p in PROGRAMS if p.name not in BROKEN_IN_STOCK], ids=str)
def test_stock_svi_trains_it(program):
    pair = program.pair(stock=True)
    svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 0.02}), pair.objective)
    with quiet():
        losses = [svi.step(*arguments(batch)) for batch in pair.batches]
        first = {name: p.detach().clone() for name, p in pyro.get_param_store().named_parameters()}
        losses += [svi.step(*arguments(batch)) for batch in pair.batches]
    assert all(math.isfinite(loss) for loss in losses)
    assert any(
        not torch.equal(first[name], p) for name, p in pyro.get_param_store().named_parameters() if name in first
    )


def test_there_are_programs_of_every_kind():
    assert len(PROGRAMS) >= 40
    assert len({program.name for program in PROGRAMS}) == len(PROGRAMS)
