"""Evaluation mode for a while: dropout off, batch statistics fixed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from inference.ownership import reached


@contextmanager
def evaluation_mode(*programs: Callable) -> Iterator[None]:
    """Puts programs that are modules into evaluation mode, and every part of them back as it was."""
    parts = [part for module in reached(*programs) for part in module.modules()]
    before = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        yield
    finally:
        for part, training in zip(parts, before, strict=True):
            part.training = training
