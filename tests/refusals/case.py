"""A refusal: which function, which parameter, which values it must not take, and how we tell that it refused well."""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyro
import pytest
import torch
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
KNOWN = ValueError, TypeError, FileNotFoundError

NOT_COUNTS = st.one_of(
    st.integers(-9, 0),
    st.floats(),
    st.sampled_from([None, "3", "", (), [1], {}, 1j, object(), torch.tensor(2.5), False]),
)
NOT_NUMBERS = st.sampled_from(["3", "", (), [1], {}, 1j, object()])
NOT_FINITE = st.sampled_from([float("nan"), float("inf"), -float("inf")])
NOT_SEEDS = st.one_of(st.floats(), st.sampled_from(["3", (), [1], 1j, object(), 2**70, -(2**70)]))
NOT_DENSE = [torch.ones(6, 4).to_sparse(), torch.ones(6, 4, device="meta"), torch.ones(6, 4) * 1j]
NOT_DATA = st.one_of(
    st.integers(), st.floats(), st.sampled_from(["x", object(), 1j, torch.tensor(1.0)]), st.sampled_from(NOT_DENSE)
)
NOT_DEVICES = st.sampled_from(["3", "cpus", -1, 1.5, [1], object()])
NOT_CALLABLE = st.sampled_from([None, 1, 2.5, "model", [], torch.zeros(2)])


class Case(NamedTuple):
    """What is called with the value, and what its refusal must name.

    Attributes:
        function: as in the room's ``__all__``; for a method, ``"Loader.take"``.
        parameter: as in its signature.
        call: of the value.
        bad: values that are to be refused.
        named: must be in the message; the parameter's name unless told.
    """

    function: str
    parameter: str
    call: Callable[[object], object]
    bad: st.SearchStrategy
    named: str | None = None

    def __str__(self) -> str:
        return f"{self.function}({self.parameter})"


def hold(case: Case, value: object) -> None:
    """The value is refused in words, and Pyro's handlers, the random state and the default dtype stay as they were."""
    before = pyro.poutine.runtime._PYRO_STACK[:], torch.get_default_dtype(), torch.is_grad_enabled()
    try:
        case.call(value)
    except Exception as error:
        refused(error, case.named or case.parameter)
    else:
        pytest.fail(f"{case} takes {value!r}")
    assert before == (pyro.poutine.runtime._PYRO_STACK, torch.get_default_dtype(), torch.is_grad_enabled())


def refused(error: BaseException, named: str) -> None:
    """An error that names the argument and goes on after what came: raised by us, or with notes of ours below it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "contextlib" not in frame.filename]
    last = frames[-1]
    ours = Path(last.filename).is_relative_to(ROOT) and ".venv" not in last.filename
    notes = getattr(error, "__notes__", [])  # on what a program of somebody else's raises, which keeps its class
    assert notes or isinstance(error, KNOWN), repr(error)
    assert notes or (ours and "raise" in linecache.getline(last.filename, last.lineno)), f"{last}: {error!r}"
    words = "; ".join([str(error), *notes])
    assert named in words and len(words) > len(named) + 20, f"{named!r} is not named: {words}"
