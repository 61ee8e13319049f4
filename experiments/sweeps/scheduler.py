"""Cells given out to workers, their results as they come in, and what is done when a worker dies."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import cache

import torch
from joblib import Parallel, delayed
from safetensors.torch import load, save
from torch import Tensor

from dlvm.experiments.sweeps.cells import Cell, Done
from dlvm.inference.console import first_line, tell

LOOKS_FOR_PARENT = 0.5
_alone = threading.Lock()


def outcomes(cells: Sequence[Cell], jobs: int) -> Generator[tuple[Cell, Done], None, None]:
    """What each cell gives, as they end; a record with the key ``error`` where one failed.

    Where a process dies nobody knows of which cell: those under way are tried once more, each by itself, and the rest
    goes on in new processes.

    Args:
        cells: what to compute.
        jobs: cells at a time, see ``Workers``.
    """
    waiting = list(reversed(cells))
    suspects: list[Cell] = []
    while waiting:
        under_way: dict[int, Cell] = {}
        try:
            yield from _together(waiting, under_way, jobs)
        except Exception as error:
            if not under_way:
                raise
            tell(f"{_death(error)}; under way were: {', '.join(cell.title for cell in under_way.values())}")
            suspects += under_way.values()
    for cell in suspects:
        try:
            yield from _together([cell], {}, jobs)
        except Exception as error:
            yield cell, Done({"error": _death(error)}, {})


def _together(waiting: list[Cell], under_way: dict[int, Cell], jobs: int) -> Iterator[tuple[Cell, Done]]:
    """Takes cells from the end of ``waiting``; ``under_way`` has those that were given out and are not back."""

    def given_out() -> Iterator:
        while waiting:
            index = len(waiting)
            under_way[index] = waiting.pop()
            yield delayed(compute)(under_way[index], index, os.getpid())

    parallel = Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs")
    for index, text, tensors in parallel(given_out()):
        yield under_way.pop(index), Done(json.loads(text), load(tensors))


def compute(cell: Cell, index: int, parent: int) -> tuple[int, str, bytes]:
    """A cell's record as JSON and its tensors as safetensors, as they are written later; an exception is its record."""
    if os.getppid() == parent:
        _end_with(parent)
    torch.set_num_threads(1)
    try:
        with _alone:  # a Dask worker of several threads, whose random stream they would share
            record, tensors = cell.function(cell.config, **cell.names)
        return index, json.dumps(record), save(separate(tensors))
    except Exception as error:
        return index, json.dumps({"error": f"{type(error).__name__}: {first_line(error)}"}), save({})


def separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that share no memory."""
    return {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}


@cache
def _end_with(parent: int) -> None:
    """Ends this process soon after the one that started it, so that a killed sweep leaves nothing running."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOKS_FOR_PARENT)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _death(error: Exception) -> str:
    codes = re.search(r"exit codes of the workers are \{(.*?)\}", str(error))
    return f"a worker process died ({codes[1] if codes else f'{type(error).__name__}: {first_line(error)}'})"
