"""Every program in every way: the right number, or a refusal in words."""

from __future__ import annotations

import pytest

from programs import programs
from programs.more_ways import WAYS
from programs.outcome import outcome
from programs.ways import CORE

# thousands of particles, one after the other or of large models
LONG = {"cvae", "softmax_of_dim_one", "packed_decoder", "noise_of_the_model", "batch_norm", "batch_norm_by_coincidence"}
LONG |= {"scanvi", "lda", "gamma_def"}
PROGRAMS = programs()


def faults(program, ways) -> dict[str, str]:
    found = {way: outcome(program, way) for way in ways}
    return {way: f"{seen.kind}: {seen.said}" for way, seen in found.items() if not seen.good}


@pytest.mark.parametrize(
    "program", [pytest.param(p, marks=pytest.mark.slow) if p.name in LONG else p for p in PROGRAMS], ids=str
)
def test_it_is_trained_checked_and_weighed_as_it_should(program):
    assert faults(program, CORE) == {}


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_every_objective_guide_and_estimate_of_it(program):
    assert faults(program, WAYS) == {}
