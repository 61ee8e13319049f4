"""Whatever is passed: the right answer, or an error of ours that names the argument, never a bare one of torch."""

from __future__ import annotations

import inspect
import math

import pytest
from hypothesis import given
from hypothesis import settings as running
from refusals import data, distributions, evidence, guides, models, nets
from refusals import inference as inferring
from refusals.case import Case, hold

from dlvm import inference

TABLES = [nets, distributions, models, guides, inferring, evidence, data]
CASES = [case for table in TABLES for case in table.CASES]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_no_such_argument_is_refused_by_its_name(case: Case):
    @running(max_examples=6, deadline=None, derandomize=True, database=None)
    @given(case.bad)
    def property(value):
        hold(case, value)

    property()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_and_so_are_many_more(case: Case):
    @running(max_examples=30, deadline=None, derandomize=True, database=None)
    @given(case.bad)
    def property(value):
        hold(case, value)

    property()


def parameters(function: object) -> list[str]:
    given = inspect.signature(function).parameters.values()
    return [p.name for p in given if p.kind is not p.VAR_KEYWORD]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.ROOM.__name__)
def test_every_parameter_of_every_public_function_is_in_the_table(table):
    """Or the table says why any value will do; and it names nothing that is not there."""
    public = {name: getattr(table.ROOM, name) for name in table.ROOM.__all__ if name not in table.RECORDS}
    needed = {f"{name}({p})" for name, function in public.items() for p in parameters(function)}
    held, excused = {str(case) for case in table.CASES}, set(table.ANY)
    assert needed <= held | excused, f"not in the table: {sorted(needed - held - excused)}"
    assert not held & excused and excused <= needed
    methods = {name for name in held - needed if "." in name.partition("(")[0]}
    assert held - needed == methods, f"no such parameter: {sorted(held - needed - methods)}"


def test_numbers_that_are_out_of_range_are_no_numbers_in_range():
    for value in (math.nan, math.inf, -math.inf):
        for make in (inference.Renyi, inference.CUBO, inference.CIWAE, inference.constant):
            with pytest.raises(ValueError, match="must be"):
                make(value)
