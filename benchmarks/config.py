"""What a run of the benchmarks is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.catalogue import SMALL, Sizes, catalogue
from benchmarks.variants import ENGINES

SECTIONS = ("step", "epoch", "importance", "density", "estimators", "precision", "start", "memory")


@dataclass(frozen=True)
class Config:
    """Time the engine beside hand-written PyTorch, stock Pyro, NumPyro and pythae, all in one run."""

    only: str = ",".join(SECTIONS)
    """Sections, separated by commas: step, epoch, importance, density, estimators, precision (bf16), start (capture and
    compile time), memory."""
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
            words = self.words(name)
            if not words or set(words) - set(known) or len(set(words)) < len(words):
                raise ValueError(
                    f"{name} must name some of {', '.join(known)}, none twice, got {getattr(self, name)!r}"
                )
        for name, most in (("repetitions", 2**31), ("threads", 1024)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be between 1 and {most}, got {getattr(self, name)}")
        if not 0 < self.block_seconds < float("inf"):
            raise ValueError(f"block_seconds must be positive, got {self.block_seconds}")
        catalogue(self.sizes, self.words("cases"))  # refuses parts that are in no name

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
