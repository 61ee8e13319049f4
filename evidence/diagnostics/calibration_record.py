"""The record of a simulation-based calibration: faults, coverage, and words for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from evidence.measured import Measured
from evidence.ranked import JOINT, SHIFTED, Ranked
from nets.numbers import real

SIGNIFICANT = 0.05
MOST_NAMED = 8


@dataclass(frozen=True)
class Calibration:
    """What the ranks of simulated truths say of a guide.

    Attributes:
        rows: one per dimension of every latent site, in generation order, and log p(x, z) last.
        levels: of the credible intervals.
        num_particles: L per datum.
        weighted: whether draws counted by their importance weights.
        seconds: it took.
        asked: how many data there were to be; more than ``num_data`` after Ctrl-C.
    """

    rows: tuple[Ranked, ...]
    levels: tuple[float, ...]
    num_particles: int
    weighted: bool
    seconds: float
    asked: int

    @property
    def num_data(self) -> int:
        return len(self.rows[0].u)

    def __getitem__(self, name: str) -> Ranked:
        """The row of a quantity, such as ``"z[0]"`` or ``"log p(x, z)"``."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no quantity {name!r}; there are {', '.join(row.name for row in self.rows[:20])}")

    @property
    def p_values(self) -> dict[str, float]:
        """{quantity: p-value}, corrected for their number by Holm's method: below 0.05 is a fault."""
        order = sorted(self.rows, key=lambda row: row.p_value)
        found, worst = {}, 0.0
        for i, row in enumerate(order):
            worst = max(worst, min(1.0, (len(order) - i) * row.p_value))
            found[row.name] = worst
        return {row.name: found[row.name] for row in self.rows}

    @property
    def faults(self) -> dict[str, str]:
        """{quantity: what is wrong with it} of those whose ranks are not uniform."""
        p_values = self.p_values
        return {row.name: row.shape for row in self.rows if p_values[row.name] < SIGNIFICANT}

    @property
    def calibrated(self) -> bool:
        """Whether no fault was seen; a wrong detection has a chance of 5 % in all."""
        return not self.faults

    def coverage(self, level: float) -> Measured:
        """Share of the dimensions, all pooled, whose central interval holds the truth; its error is over data."""
        real(level=level)
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, got {level}; 0.9 is the central interval of 90 %")
        single = [row.covered(level).double() for row in self.rows if row.name != JOINT]
        pooled = Measured.mean(torch.stack(single).mean(0))
        return Measured(pooled.value, max(pooled.se, 1 / (self.num_data * len(single))))

    @property
    def verdict(self) -> str:
        """What the guide is, in a word or two, by what most of the faults say."""
        marginal = [fault for name, fault in self.faults.items() if name != JOINT]
        marginal = ["shifted" if fault in SHIFTED.values() else fault for fault in marginal]
        if self.calibrated:
            return "no fault seen"
        return max(marginal, key=marginal.count) if marginal else "wrong jointly, though each dimension looks right"

    @property
    def next_step(self) -> str:
        """What to try next, in plain words."""
        if self.calibrated:
            return "more data find smaller faults" if self.num_data < 10_000 else "nothing to gain here"
        if self.weighted:
            return "more particles, or a better guide: even weighted its draws are not those of the posterior"
        if self.verdict == "too narrow":
            return "a guide that knows correlations (FullRank, IAF), or IWAE's bound, which penalises missed mass"
        if self.verdict == "too wide":
            return "longer training of the guide: a bound rarely leaves it too wide"
        if self.verdict == "shifted":
            return "longer training or a larger encoder: means are off, which is amortisation"
        return "gaps(...), which tells family from amortisation, or a richer family"

    def __str__(self) -> str:
        kind = "importance-weighted draws" if self.weighted else "draws"
        done = "" if self.num_data == self.asked else f", interrupted after {self.num_data} of {self.asked} data"
        cover = "   ".join(f"{100 * level:g} %: {_percent(self.coverage(level))}" for level in self.levels)
        p_values = self.p_values
        named = sorted(self.faults.items(), key=lambda item: p_values[item[0]])
        text = "; ".join(f"{name} {fault} ({_p(p_values[name])})" for name, fault in named[:MOST_NAMED])
        more = f"; and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
        lines = [
            f"q(z | x): {self.verdict}   ({self.num_data} simulated data, {self.num_particles} {kind} each, "
            f"{self.seconds:.1f} s{done})",
            f"coverage of central intervals   {cover}",
            f"ranks not uniform for {len(named)} of {len(self.rows)} quantities" + (f": {text}{more}" if named else ""),
        ]
        return "\n".join([*lines, f"next: {self.next_step}"])


def _percent(share: Measured) -> str:
    return f"{100 * share.value:.1f} ± {100 * share.se:.1f}"


def _p(value: float) -> str:
    return f"p = {value:.2g}" if value > 1e-16 else "p < 1e-16"
