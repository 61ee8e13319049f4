"""Threads that stay on their cores."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from dlvm.nets.arguments import whole


@contextmanager
def settled(threads: int) -> Iterator[None]:
    """Inside, torch computes with this many threads, each of them on a core of its own (on Linux, if there are enough).

    A step of a small net is made of many short parallel regions. Where a thread wanders between cores, or shares one
    with another thread that has computed before and only waits, a region takes twice as long. Afterwards the number of
    threads and their cores are as before. Processes started inside inherit the core of the calling thread.

    Args:
        threads: at least 1.

    Raises:
        ValueError: ``threads`` is below 1.
    """
    whole(threads=threads)
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    pinned = _pin(threads) if 1 < threads and hasattr(os, "sched_setaffinity") else {}
    try:
        yield
    finally:
        torch.set_num_threads(before)
        for thread, cores in pinned.items():
            if thread in _threads():
                os.sched_setaffinity(thread, cores)


def _pin(threads: int) -> dict[int, set[int]]:
    """Pins the calling thread and the workers of its parallel regions; returns where each was allowed before."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < threads:
        return {}
    busy = _spent()
    value = torch.ones(1 << 20)
    for _ in range(20):
        value.mul_(1.0)
    spent = _spent()
    others = [thread for thread in spent if thread != threading.get_native_id()]
    workers = sorted(others, key=lambda thread: busy.get(thread, 0) - spent[thread])[: threads - 1]
    if len(workers) < threads - 1:
        return {}
    first = os.getpid() * threads  # so that processes side by side do not all take the same cores
    allowed = {thread: os.sched_getaffinity(thread) for thread in (0, *workers)}
    for position, thread in enumerate(allowed, start=first):
        os.sched_setaffinity(thread, {cores[position % len(cores)]})
    return allowed


def _threads() -> set[int]:
    return {0, *(int(entry.name) for entry in Path("/proc/self/task").iterdir())}


def _spent() -> dict[int, int]:
    """Nanoseconds on a processor, by thread of this process."""
    found = {}
    for entry in Path("/proc/self/task").iterdir():
        try:
            found[int(entry.name)] = int((entry / "schedstat").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            continue
    return found
