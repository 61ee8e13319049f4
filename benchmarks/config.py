"""What a run of the benchmarks is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.catalogue import SMALL, Sizes
from benchmarks.variants import ENGINES

SECTIONS = ("step", "epoch", "importance", "estimators", "precision", "start", "memory")


@dataclass(frozen=True)
class Config:
    """Time the engine beside hand-written PyTorch, stock Pyro, NumPyro and pythae, all in one run."""

    only: str = ",".join(SECTIONS)
    """Sections, separated by commas: step, epoch, importance, estimators, precision (bf16), start (capture and compile
    time), memory."""
    cases: str = ""
    """Parts of names of step cases, separated by semicolons, such as "5 sites;T = 10"; all unless told."""
    engines: str = ",".join(ENGINES)
    """Engines, separated by commas."""
    repetitions: int = 7
    """Blocks per variant; medians and spreads are over them."""
    block_seconds: float = 0.5
    """How long a block lasts; some hundred steps, so that periodic checks are in it."""
    threads: int = 2
    """Threads of torch; the targets are for two CPU cores."""
    compile_twins: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Put the hand-written twins through torch.compile as well."""
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Tiny networks and data, to see that everything runs; its figures say nothing."""
    out: Path = Path("runs/benchmarks")
    """Folder for benchmarks.md and benchmarks.json."""

    def __post_init__(self) -> None:
        for name, known in (("only", SECTIONS), ("engines", ENGINES)):
            if unknown := set(self.words(name)) - set(known):
                raise ValueError(f"{name} must name some of {', '.join(known)}, got {', '.join(sorted(unknown))}")
        for name in ("repetitions", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def words(self, name: str) -> list[str]:
        """The parts of ``only``, ``engines`` or ``cases``."""
        separator = ";" if name == "cases" else ","
        return [word.strip() for word in getattr(self, name).split(separator) if word.strip()]

    @property
    def sizes(self) -> Sizes:
        """Widths of the networks."""
        return SMALL if self.quick else Sizes()

    @property
    def rows(self) -> int:
        """Data in an epoch."""
        return 400 if self.quick else 60_000

    @property
    def particles(self) -> int:
        """Importance samples per datum."""
        return 100 if self.quick else 5000
