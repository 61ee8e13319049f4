"""Milliseconds per training step, and how they grow with sites and flow steps."""

from __future__ import annotations

from functools import partial

from benchmarks.attempts import ready
from benchmarks.catalogue import IWAE_50, ONE_SITE, Case, catalogue
from benchmarks.config import Config
from benchmarks.results import Results
from benchmarks.timing import Timings, measure
from benchmarks.variants import CAPTURED, COMPILED, EAGER, HAND, HAND_COMPILED, STOCK, UNGUARDED, caller
from dlvm.inference.engine.threads import settled

RATIOS = (
    (COMPILED, HAND),
    (CAPTURED, HAND),
    (COMPILED, STOCK),
    (COMPILED, HAND_COMPILED),
    (HAND_COMPILED, HAND),
    (COMPILED, UNGUARDED),
    (EAGER, HAND),
    (EAGER, STOCK),
    (STOCK, HAND),
)
SLOPES = (
    ("per extra site", "2 sites, batch 100", "10 sites, batch 100", 8),
    ("per IAF step", "IAF, depth 2", "IAF, depth 8", 6),
    ("per time step", "sequence, T = 5", "sequence, T = 10", 5),
    ("per extra particle", "IWAE, K = 5, batch 20", IWAE_50, 45),
)


def run(config: Config, results: Results) -> None:
    for case in catalogue(config.sizes, config.words("cases")).values():
        makers = {name: partial(caller, case, name) for name in _variants(case, config)}
        calls = ready(case.name, makers, results)
        if calls:
            timings = measure(calls, config.repetitions, config.block_seconds, quiet=partial(settled, config.threads))
            results.add_timings(case.name, timings, RATIOS)
    _growth(results)


def _variants(case: Case, config: Config) -> list[str]:
    engines = config.words("engines")
    guards = [UNGUARDED] if case.name == ONE_SITE and COMPILED in engines else []
    return [STOCK, HAND, *([HAND_COMPILED] if config.compile_twins else []), *engines, *guards]


def _growth(results: Results) -> None:
    """What one site, flow step, time step or particle more costs, as a share of what it costs by hand."""
    for what, small, large, apart in SLOPES:
        if small not in results.seconds or large not in results.seconds:
            continue
        below, above = Timings(results.seconds[small]), Timings(results.seconds[large])
        for variant in below.seconds:
            if variant in above:
                slope = (above.of(variant).median - below.of(variant).median) / apart
                results.add("growth", f"{variant}, {what}", 1e3 * slope, "ms")
