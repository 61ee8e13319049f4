"""Estimates of log p(x) from below and from above, side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dlvm.evidence.estimate import Estimate

ERRORS = 3.0
ROUNDING = 1e-3  # nats, of single precision
BIASED = "CUBO"


@dataclass(frozen=True)
class Sandwich:
    """What several methods say of the same data, from the loosest lower bound to the loosest upper one.

    Attributes:
        rows: {name: estimate}: ELBO, IWAE, AIS, exact where the model knows it, reverse AIS, CUBO.
        simulated: whether the data came from the model, so that there is a reverse AIS.
        complete: False after Ctrl-C.
    """

    rows: dict[str, Estimate]
    simulated: bool
    complete: bool = True

    @property
    def lower(self) -> str | None:
        """Name of the largest lower bound."""
        return max(self._side("lower"), key=lambda name: self.rows[name].mean, default=None)

    @property
    def upper(self) -> str | None:
        """Name of the smallest upper bound; None on real data. CUBO, whose estimate is too low, is not counted."""
        return min(self._side("upper"), key=lambda name: self.rows[name].mean, default=None)

    @property
    def width(self) -> tuple[float, float]:
        """Upper less lower bound with its standard error, nats per datum; NaN where there is no upper bound."""
        return self.gap(self.upper, self.lower) if self.upper and self.lower else (math.nan, math.nan)

    def gap(self, first: str, second: str) -> tuple[float, float]:
        """How far one row lies above another on the data that both have, nats per datum, and the standard error.

        The error is that of the samples; where there is one sample per datum, that which the scatter over data shows.
        """
        for name, row in (("first", first), ("second", second)):
            if not isinstance(row, str) or row not in self.rows:
                raise ValueError(f"{name} must be one of the rows {', '.join(self.rows)}, got {row!r}")
        count = min(self.rows[first].num_data, self.rows[second].num_data)
        a, b = self.rows[first], self.rows[second]
        apart = a.log_px[:count] - b.log_px[:count]
        samples = (a.log_px_se[:count].square() + b.log_px_se[:count].square()).sum().sqrt() / count
        if samples.isnan() and count > 1:
            samples = apart.std() / math.sqrt(count)
        return apart.mean().item(), samples.item()

    @property
    def crossings(self) -> list[tuple[str, str]]:
        """(a, b) where a should not exceed b and does, by more than three standard errors."""
        lower, exact, upper = (self._side(side) for side in ("lower", "exact", "upper"))
        pairs = [(a, b) for a in lower for b in exact + upper] + [(a, b) for a in exact for b in upper]
        return [(a, b) for a, b in pairs if self._exceeds(a, b)]

    @property
    def verdict(self) -> list[str]:
        """What follows, in sentences."""
        said = [
            f"{a} lies {_nats(*self.gap(a, b))} above {b}, which it should not exceed: at least one of the two has not "
            "converged; take more temperatures and chains"
            for a, b in self.crossings
        ]
        if self.upper and self.lower and not said:
            width, se = self.width
            if width < -ROUNDING:
                apart = _nats(-width, se)
                said.append(
                    f"the bracket is crossed: {self.lower} lies {apart} above {self.upper}, within errors, which say "
                    "how well log p(x) is known; take more chains"
                )
            else:
                apart = _nats(max(width, 0.0), se)
                said.append(f"log p(x) lies between {self.lower} and {self.upper}, {apart} apart")
        if not self.simulated:
            said += self._disagreement()
        for name in self.rows:
            if name.startswith(BIASED):
                said.append(self._of_cubo(name))
        return said if self.complete else [*said, "interrupted: rows are missing, or of a part of the data"]

    def _side(self, side: str) -> list[str]:
        return [name for name, row in self.rows.items() if row.side == side and not name.startswith(BIASED)]

    def _exceeds(self, a: str, b: str) -> bool:
        excess, se = self.gap(a, b)
        return excess > max(ERRORS * se, ROUNDING)

    def _disagreement(self) -> list[str]:
        weighed = next((name for name in self.rows if name.startswith("IWAE")), None)
        if weighed is None or "AIS" not in self.rows:
            return []
        text = f"AIS less {weighed} is {_nats(*self.gap('AIS', weighed))}"
        if self._exceeds("AIS", weighed):
            end = "importance sampling falls short by that much at least, so report AIS"
        elif self._exceeds(weighed, "AIS"):
            end = f"AIS has not converged, so take more temperatures, and report {weighed}"
        else:
            end = "they agree within errors, as two lower bounds may even where both are too low"
        return [f"{text}: {end}; real data have no upper bound, so simulate from the model to bracket the method"]

    def _of_cubo(self, name: str) -> str:
        bad = self.rows[name].khat_bad
        below = [other for other in self._side("lower") + self._side("exact") if self._exceeds(other, name)]
        if below:
            return f"{name} lies below {below[-1]}: its estimate from few samples is too low here, and bounds nothing"
        trust = "its k-hat is unknown" if math.isnan(bad) else f"its k-hat exceeds 0.7 for {100 * bad:.0f} % of data"
        return f"{name} is an upper bound with endless samples only, and too low with these; {trust}"

    def __str__(self) -> str:
        count = max(row.num_data for row in self.rows.values())
        wide = max(map(len, self.rows))
        lines = [f"log p(x) of {count} {'simulated' if self.simulated else 'real'} data, nats per datum"]
        lines += [f"  {name:<{wide}}  {str(row).removeprefix('log p(x) ')}" for name, row in self.rows.items()]
        return "\n".join([*lines, *(f"{line[0].upper()}{line[1:]}." for line in self.verdict)])


def _nats(value: float, se: float) -> str:
    return f"{value:.3f} ± {se:.3f} nats"
