"""A mean over data with its standard error."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor


class Measured(NamedTuple):
    """A number that data tell, and its standard error over the choice of data and of draws; NaN for a single datum."""

    value: float
    se: float

    @classmethod
    def mean(cls, values: Tensor) -> Measured:
        """The mean of one number per datum, shape (num_data,)."""
        values = values.double()
        return cls(values.mean().item(), _standard_error(values))

    @classmethod
    def ratio(cls, above: Tensor, below: Tensor) -> Measured:
        """sum above / sum below of one pair of numbers per datum, shapes (num_data,); its error to first order."""
        above, below = above.double(), below.double()
        value = above.sum() / below.sum()
        return cls(value.item(), _standard_error((above - value * below) / below.mean()))

    @classmethod
    def share(cls, hits: int, count: int) -> Measured:
        """A share of ``count`` independent trials, with its binomial error."""
        p = (hits + 1) / (count + 2)  # so that the error of 0 or all hits is not 0
        return cls(hits / count, math.sqrt(p * (1 - p) / count))

    def above(self, other: float, errors: float = 3.0) -> bool:
        """Whether it is more than ``errors`` standard errors above ``other``."""
        return self.value - other > errors * self.se

    def below(self, other: float, errors: float = 3.0) -> bool:
        """Whether it is more than ``errors`` standard errors below ``other``."""
        return other - self.value > errors * self.se

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.se:.3f}"


def _standard_error(values: Tensor) -> float:
    return (values.std() / math.sqrt(len(values))).item() if len(values) > 1 else math.nan


class Mean(NamedTuple):
    """A mean over data in nats with its Monte Carlo standard error, 0 where it is exact.

    ``side`` says how the wanted number stands to ``value``, in expectation: "=" it is estimated, ">=" and "<=" it is at
    least or at most this, "~" neither is known.
    """

    value: float
    se: float
    side: str = "="

    def __str__(self) -> str:
        return ("" if self.side == "=" else f"{self.side} ") + f"{self.value:.3f} ± {self.se:.3f}"
