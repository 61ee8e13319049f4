"""What the sections find: ratios for the table, seconds behind them, and remarks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks.targets import TARGETS, Target
from benchmarks.timing import Spread, Timings


class Row(NamedTuple):
    """A line of the table; a ratio unless it has a unit."""

    case: str
    quantity: str
    value: Spread
    unit: str = ""
    target: Target | None = None

    @property
    def verdict(self) -> str:
        """Whether the median reaches the target; empty where there is none."""
        return "" if self.target is None else "yes" if self.target.reached(self.value.median) else "no"


@dataclass
class Results:
    """Collects rows as sections go; ``seconds`` has every repetition of every variant of every case.

    Args:
        judged: set the targets beside what was measured.
    """

    judged: bool = True
    rows: list[Row] = field(default_factory=list)
    seconds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, case: str, quantity: str, value: Spread | float, unit: str = "") -> None:
        """One line; a bare number is a measurement made once."""
        value = value if isinstance(value, Spread) else Spread(value, value, value)
        target = TARGETS.get((case, quantity)) if self.judged else None
        self.rows.append(Row(case, quantity, value, unit, target))

    def add_timings(self, case: str, timings: Timings, pairs: Iterable[tuple[str, str]]) -> None:
        """All seconds of a case, and the ratios of those pairs of variants that were measured."""
        self.seconds[case] = timings.seconds
        for name, to in pairs:
            if name in timings and to in timings:
                self.add(case, f"{name} / {to}", timings.ratio(name, to))

    def note(self, text: str) -> None:
        """A remark, once."""
        if text not in self.notes:
            self.notes.append(text)
