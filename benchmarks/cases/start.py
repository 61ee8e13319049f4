"""Seconds until an engine is at full speed: capture, and compilation with an empty and with a filled cache."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.catalogue import FIVE_SITES, ONE_SITE, SEQUENCE
from benchmarks.child import launch
from benchmarks.config import Config
from benchmarks.results import Results
from benchmarks.timing import spread
from benchmarks.variants import CAPTURED, COMPILED, HAND_COMPILED

STEPS = 30


def run(config: Config, results: Results) -> None:
    parts, engines = config.words("cases"), config.words("engines")
    compiled = [COMPILED] * (COMPILED in engines) + [HAND_COMPILED] * config.compile_twins
    for case in (ONE_SITE, FIVE_SITES, SEQUENCE):
        if parts and not any(part in case for part in parts):
            continue
        try:
            if CAPTURED in engines:
                _capture(case, config, results)
            for variant in compiled:
                _compile(case, variant, config, results)
        except RuntimeError as error:
            results.note(f"{case}: capture and compile times are incomplete ({error})")


def _capture(case: str, config: Config, results: Results) -> None:
    """The first capture in a process pays for imports as well; the later ones are the capture alone."""
    count = config.repetitions + 1
    first, *later = launch(case, CAPTURED, STEPS, config.quick, config.threads, programs=count)["first"]
    results.add(case, "capture time", spread(later), "s")
    results.add(case, "capture time, first in a process", first, "s")


def _compile(case: str, variant: str, config: Config, results: Results) -> None:
    with TemporaryDirectory() as folder:
        for cache in ("empty", "filled"):
            seen = launch(case, variant, STEPS, config.quick, config.threads, cache=Path(folder))
            results.add(case, f"compile time, {variant}, {cache} cache", seen["first"][0], "s")
