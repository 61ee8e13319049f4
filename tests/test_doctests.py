"""Every example in every docstring runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pyro
import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("nets", "distributions", "models", "guides", "inference", "evidence", "experiments")
PATHS = [path.relative_to(ROOT) for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
MODULES = ["dlvm." + ".".join(p.with_suffix("").parts).removesuffix(".__init__") for p in PATHS]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples(module: str) -> list[doctest.DocTest]:
    return [test for test in doctest.DocTestFinder().find(importlib.import_module(module)) if test.examples]


@pytest.mark.parametrize("module", MODULES)
def test_examples_print_what_they_say(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for test in examples(module):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        report = []
        doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.append)
        assert not report, f"{test.name}\n" + "".join(report)


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "experiments"])
def test_every_public_name_has_a_docstring(room):
    package = importlib.import_module(f"dlvm.{room}")
    assert not [name for name in package.__all__ if not (getattr(package, name).__doc__ or "").strip()]


def test_examples_are_found_in_every_room():
    counts = {room: sum(len(examples(m)) for m in MODULES if m.split(".")[1] == room) for room in ROOMS}
    assert all(counts.values()), counts
