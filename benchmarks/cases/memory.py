"""Peak memory beside the hand-written twin's, and what many steps add to it; each variant in a process of its own."""

from __future__ import annotations

from benchmarks.catalogue import FIVE_SITES, ONE_SITE
from benchmarks.child import launch
from benchmarks.config import Config
from benchmarks.results import Results
from benchmarks.variants import HAND, STOCK


def run(config: Config, results: Results) -> None:
    steps = 40 if config.quick else 2000
    for case in (ONE_SITE, FIVE_SITES):
        found: dict[str, dict[str, float]] = {}
        for variant in (HAND, STOCK, *config.words("engines")):
            try:
                lists = launch(case, variant, steps, config.quick, config.threads)
                found[variant] = {name: values[0] for name, values in lists.items()}
            except RuntimeError as error:
                results.note(f"{case}: memory of {variant} was not measured ({error})")
        for variant, seen in found.items():
            results.add(case, f"peak memory, {variant}", seen["peak"], "MB")
            results.add(case, f"memory gained over {steps} steps, {variant}", seen["growth"], "MB")
            if variant != HAND and HAND in found:
                excess = seen["peak"] - found[HAND]["peak"]
                results.add(case, f"peak memory beyond hand-written, {variant}", excess, "MB")
    results.note("The hand-written twin's process does not import Pyro; the others' peak includes that.")
