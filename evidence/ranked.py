"""Where the truth lies among draws, for one quantity: ranks, a test of uniformity, coverage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from evidence.measured import Measured

MOST_BINS = 20
DATA_PER_BIN = 5
JOINT = "log p(x, z)"
SHIFTED = {1: "too low", -1: "too high"}
SPREAD = {1: "too narrow", -1: "too wide"}
JOINT_SHIFTED = {1: "draws are less likely than the truth", -1: "draws are more likely than the truth"}
LARGE = 3.0


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
