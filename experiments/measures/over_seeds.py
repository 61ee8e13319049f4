"""Runs that differ in their seed alone: means, their Monte Carlo error, and how far seeds lie apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class OverSeeds:
    """Records of runs of one kind, one a seed.

    Args:
        rows: mappings with ``log_px`` and ``log_px_se``, nats per datum, and whatever else is asked for.
    """

    rows: list[Mapping]

    @property
    def first(self) -> Mapping:
        """A record, for what all have in common."""
        return self.rows[0]

    @property
    def log_px(self) -> float:
        """Mean over seeds."""
        return self.mean("log_px")

    @property
    def log_px_se(self) -> float:
        """Monte Carlo standard error of that mean, which knows nothing of how seeds differ."""
        return fmean(row["log_px_se"] ** 2 for row in self.rows) ** 0.5 / len(self.rows) ** 0.5

    @property
    def spread(self) -> float | None:
        """Standard deviation of log p(x) over seeds; None of one."""
        return stdev(row["log_px"] for row in self.rows) if len(self.rows) > 1 else None

    def all(self, name: str) -> list:
        """A value of every run."""
        return [row[name] for row in self.rows]

    def mean(self, name: str) -> float:
        """Of a number, over seeds."""
        return fmean(self.all(name))

    def means(self, name: str) -> dict[str, float]:
        """Of {key: number}, over seeds."""
        return {key: fmean(values[key] for values in self.all(name)) for key in self.first[name]}


def over_seeds(rows: Iterable[Mapping], *names: str) -> dict[tuple, OverSeeds]:
    """Runs that agree in these values together, in the order in which they first come.

    Example:
        >>> rows = [{"guide": "IAF", "log_px": x, "log_px_se": 0.1} for x in (-20.0, -21.0)]
        >>> over_seeds(rows, "guide")[("IAF",)].log_px
        -20.5
    """
    found: dict[tuple, OverSeeds] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), OverSeeds([])).rows.append(row)
    return found
