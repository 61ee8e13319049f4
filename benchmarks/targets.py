"""What is to be reached, on two CPU cores, and whether it was."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.catalogue import CHAIN, FIVE_SITES, IWAE_50, ONE_SITE, SEQUENCE

EPOCH, IMPORTANCE = "epoch, 1 site, 60 000 x 784", "importance sampling, K = 5000"
DENSITY = "MADE, batch 100"


class Target(NamedTuple):
    """A limit: on ratios where nothing else is said, or in the unit given."""

    limit: float
    at_most: bool = True
    unit: str = ""

    def reached(self, value: float) -> bool:
        return value <= self.limit if self.at_most else value >= self.limit

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.limit:g}{self.unit and ' ' + self.unit}"


TARGETS = {
    (ONE_SITE, "compiled / hand-written"): Target(0.85),
    (FIVE_SITES, "compiled / hand-written"): Target(0.75),
    (ONE_SITE, "captured / hand-written"): Target(1.15),
    (FIVE_SITES, "captured / hand-written"): Target(1.15),
    (IWAE_50, "compiled / hand-written"): Target(1.15),
    (IWAE_50, "captured / hand-written"): Target(1.15),
    (ONE_SITE, "compiled / stock SVI"): Target(0.5),
    (FIVE_SITES, "compiled / stock SVI"): Target(0.32),
    (SEQUENCE, "compiled / stock SVI"): Target(0.25),
    (CHAIN, "eager / hand-written"): Target(1.2),
    (CHAIN, "eager / stock SVI"): Target(0.35),
    (ONE_SITE, "compiled / compiled, no guards or audit"): Target(1.08),
    (EPOCH, "compiled / numpyro"): Target(1.0),
    (EPOCH, "compiled / pythae"): Target(0.45),
    (IMPORTANCE, "evaluate, share of sgemm"): Target(0.65, at_most=False),
    (IMPORTANCE, "pythae / evaluate"): Target(4.5, at_most=False),
    (f"{DENSITY}, 1000 units", "dlvm / hand-written"): Target(1.0),
    (f"{DENSITY}, 4000 units", "dlvm / hand-written"): Target(1.0),
    (ONE_SITE, "capture time"): Target(0.3, unit="s"),
    (ONE_SITE, "peak memory beyond hand-written, compiled"): Target(250, unit="MB"),
}
