"""One file per section of the table; each has ``run(config, results)``."""

from __future__ import annotations

from benchmarks.cases import density, epoch, estimators, importance, memory, precision, start, step

RUN = {
    "step": step.run,
    "epoch": epoch.run,
    "importance": importance.run,
    "density": density.run,
    "estimators": estimators.run,
    "precision": precision.run,
    "start": start.run,
    "memory": memory.run,
}

__all__ = ["RUN"]
