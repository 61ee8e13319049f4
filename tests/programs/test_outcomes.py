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


def pending(program: str) -> set[str]:
    """The ways that are known to go wrong with a program, each on a line of its own: program, two spaces, way."""
    lines = (line.split("  ", 1) for line in PENDING.read_text("utf-8").splitlines()) if PENDING.exists() else ()
    return {way for name, way in lines if name == program}


def faults(program, ways) -> dict[str, str]:
    found = {way: outcome(program, way) for way in ways}
    return {way: f"{seen.kind}: {seen.said}" for way, seen in found.items() if not seen.good}


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_it_is_trained_checked_and_weighed_as_it_should(program):
    found = faults(program, CORE)
    assert found.keys() == pending(str(program)) & CORE.keys(), found


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_every_objective_guide_and_estimate_of_it(program):
    found = faults(program, WAYS)
    assert found.keys() == pending(str(program)) & WAYS.keys(), found


def test_pending_faults_are_of_programs_that_there_are():
    known = {f"{program}  {way}" for program in PROGRAMS for way in (*CORE, *WAYS)}
    assert not PENDING.exists() or set(PENDING.read_text("utf-8").splitlines()) <= known
