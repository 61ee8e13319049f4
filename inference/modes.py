"""Evaluation mode for a while: dropout off, batch statistics fixed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch.nn.modules.batchnorm import _NormBase

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


@contextmanager
def statistics_kept(program: Callable) -> Iterator[None]:
    """Inside, batch statistics are used as before and not gathered."""
    parts = (part for module in reached(program) for part in module.modules() if isinstance(part, _NormBase))
    gathering = [part for part in parts if part.training and part.track_running_stats]
    try:
        for part in gathering:
            part.track_running_stats = False
        yield
    finally:
        for part in gathering:
            part.track_running_stats = True
