"""The programs and helpers of this folder can be imported by name; every test starts without notices said before."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dlvm.inference import console

if str(Path(__file__).parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(console, "_said", set())


@pytest.fixture(autouse=True)
def audited(monkeypatch):
    """No step is audited, so that each is made from the graph; call it with a number to audit every so many steps."""

    def every(steps: int | None) -> None:
        test = property(lambda kind: steps is not None and kind.replays % steps == 0)
        monkeypatch.setattr("dlvm.inference.engine.cache.Kind.audited_now", test)

    every(None)
    return every


@pytest.fixture(autouse=True)
def collector(monkeypatch):
    """Captures themselves leave the garbage collector alone."""
    monkeypatch.setattr("dlvm.inference.engine.engine.hold", lambda owner: None)
