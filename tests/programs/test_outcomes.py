"""Every program in every way: the right number, or a refusal in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from programs import programs
from programs.more_ways import WAYS
from programs.outcome import outcome
from programs.ways import CORE

PROGRAMS = programs()
PENDING = Path(__file__).with_name("pending.txt")


def pending() -> dict[str, set[str]]:
    """{program: ways that are known to go wrong}, as ``table.py --pending`` writes them; these and no others may."""
    lines = PENDING.read_text("utf-8").splitlines() if PENDING.exists() else []
    return {program: set(ways.split(" | ")) for program, ways in (line.split("  ", 1) for line in lines)}


def faults(program, ways) -> dict[str, str]:
    found = {way: outcome(program, way) for way in ways}
    return {way: f"{seen.kind}: {seen.said}" for way, seen in found.items() if not seen.good}


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_it_is_trained_checked_and_weighed_as_it_should(program):
    found = faults(program, CORE)
    assert found.keys() == pending().get(str(program), set()) & CORE.keys(), found


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_every_objective_guide_and_estimate_of_it(program):
    found = faults(program, WAYS)
    assert found.keys() == pending().get(str(program), set()) & WAYS.keys(), found


def test_pending_faults_are_of_programs_and_ways_that_there_are():
    assert pending().keys() <= {str(program) for program in PROGRAMS}
    assert set().union(*pending().values()) <= {*CORE, *WAYS}
