"""What a record of the two views is made of: means with their errors, KLs of sites, moments of units."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from inference.activity import count_active


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


class SiteKL(NamedTuple):
    """E KL(q(z_j | ...) || p(z_j | ...)) of one site; ``how`` is "analytic" or "Monte Carlo".

    Shape (units,) for ``units`` and ``units_se``, nats; None where q or p has dependent dimensions.
    """

    mean: Mean
    how: str
    units: Tensor | None = None
    units_se: Tensor | None = None


class Units(NamedTuple):
    """Moments of one site under q(z), of all data; shape (units,) each.

    ``between`` is the variance over data of posterior means, ``mean`` and ``variance`` are those of q(z).
    """

    between: Tensor
    mean: Tensor
    variance: Tensor

    @property
    def active(self) -> int:
        """How many posterior means vary over data by more than 0.01."""
        return count_active(self.between)
