"""A variant in a process of its own: ``python -m benchmarks.child '{"case": ..., ...}'`` prints JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.catalogue import SMALL, Case, Sizes, catalogue
from benchmarks.variants import Step, batches, stepper

ROOT = Path(__file__).parent.parent
FIRST = 3  # steps in which an engine runs eagerly, captures and compiles


def launch(
    case: str, variant: str, steps: int, quick: bool, threads: int, programs: int = 1, cache: Path | None = None
) -> dict[str, list[float]]:
    """Runs a variant in a fresh process.

    Returns:
        lists of one number per program. ``first``: seconds of the first steps beyond what as many later steps take;
        ``step``: seconds per later step; ``peak``: largest memory so far, MB; ``growth``: MB gained between an eighth
        of the steps and their end.

    Args:
        case, variant: names.
        steps: how many after the first ones.
        quick: tiny networks.
        threads: of torch.
        programs: how many of the kind are made and run, one after the other.
        cache: folder of compiled code; the user's own unless told.

    Raises:
        RuntimeError: the process failed.
    """
    request = dict(case=case, variant=variant, steps=steps, quick=quick, threads=threads, programs=programs)
    place = {} if cache is None else {"TORCHINDUCTOR_CACHE_DIR": str(cache)}
    command = [sys.executable, "-m", "benchmarks.child", json.dumps(request)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | place, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


def observe(case: str, variant: str, steps: int, quick: bool, threads: int, programs: int) -> dict[str, list[float]]:
    """What ``launch`` returns, in this process."""
    torch.set_num_threads(threads)
    chosen = catalogue(SMALL if quick else Sizes())[case]
    seen = [_observe(chosen, variant, steps) for _ in range(programs)]
    return {name: [one[name] for one in seen] for name in seen[0]}


def _observe(case: Case, variant: str, steps: int) -> dict[str, float]:
    data = cycle(batches(case))
    step = stepper(case, variant)
    first = _seconds(step, data, FIRST)
    early = max(1, steps // 8)
    _seconds(step, data, early)
    before = memory("VmRSS")
    each = _seconds(step, data, max(1, steps - early)) / max(1, steps - early)
    growth = memory("VmRSS") - before
    return {"first": first - FIRST * each, "step": each, "peak": memory("VmHWM"), "growth": growth}


def memory(what: str) -> float:
    """MB of this process now (``VmRSS``) or at most (``VmHWM``); Linux only.

    ``resource.getrusage`` would not do: its maximum is inherited from the process that started this one.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {what}")


def _seconds(step: Step, data: Iterator[Tensor], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        step(next(data))
    return time.perf_counter() - start


if __name__ == "__main__":
    print(json.dumps(observe(**json.loads(sys.argv[1]))))
