"""The record of a simulation-based calibration: where truths lie among draws, coverage, faults, and words for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dlvm.evidence.mean import Measured
from dlvm.nets.arguments import real

SIGNIFICANT = 0.05
MOST_NAMED = 8
MOST_BINS = 20
DATA_PER_BIN = 5
JOINT = "log p(x, z)"
SHIFTED = {1: "too low", -1: "too high"}
SPREAD = {1: "too narrow", -1: "too wide"}
JOINT_SHIFTED = {1: "draws are less likely than the truth", -1: "draws are more likely than the truth"}
LARGE = 3.0


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


@dataclass(frozen=True)
class Ranked:
    """Where the truth lies among the draws, for one quantity.

    Attributes:
        name: of the quantity: a site and its dimension, or log p(x, z).
        u: position of the truth, uniform on (0, 1) if draws and truth have one distribution; shape (num_data,).
        num_particles: L.
    """

    name: str
    u: Tensor
    num_particles: int

    @property
    def ranks(self) -> Tensor:
        """How many of the L draws lie below the truth, ties broken at random: 0..L, shape (num_data,)."""
        return (self.u * (self.num_particles + 1)).floor().long().clamp_max(self.num_particles)

    @cached_property
    def p_value(self) -> float:
        """Of the chi-square test of uniformity, with at most 20 bins of at least 5 expected data."""
        n = len(self.u)
        bins = max(2, min(MOST_BINS, n // DATA_PER_BIN))
        counts = torch.histc(self.u.clamp(0, 1), bins, 0, 1)
        statistic = (counts - n / bins).square().sum() / (n / bins)
        return torch.special.gammaincc(torch.tensor((bins - 1) / 2).double(), statistic.double() / 2).item()

    @property
    def shift(self) -> float:
        """Mean of u as a standard normal z-score: positive where draws lie below the truth."""
        return math.sqrt(12 * len(self.u)) * (self.u.mean().item() - 0.5)

    @property
    def spread(self) -> float:
        """Mean of (u - 1/2)^2 as a standard normal z-score: positive where the truth is often in the tails."""
        return math.sqrt(180 * len(self.u)) * ((self.u - 0.5).square().mean().item() - 1 / 12)

    def covered(self, level: float) -> Tensor:
        """Whether the central credible interval of this level holds the truth, shape (num_data,)."""
        return (self.u - 0.5).abs() <= level / 2

    def coverage(self, level: float) -> Measured:
        """Share of the data whose central interval holds the truth; ``level`` if calibrated."""
        return Measured.share(int(self.covered(level).sum()), len(self.u))

    @property
    def shape(self) -> str:
        """What a departure from uniformity looks like, whether or not it is significant."""
        shift, spread = (1 if z > 0 else -1 for z in (self.shift, self.spread))
        if self.name == JOINT:
            return JOINT_SHIFTED[shift] if abs(self.shift) > LARGE else "misshapen"
        if max(abs(self.shift), abs(self.spread)) < LARGE:
            return "misshapen"
        return SHIFTED[shift] if abs(self.shift) > abs(self.spread) else SPREAD[spread]
