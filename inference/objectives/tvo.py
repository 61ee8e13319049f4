"""The thermodynamic variational objective."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlvm.inference.bounds.bound import Bound
from dlvm.inference.estimators.estimator import Estimator
from dlvm.inference.objectives.objective import Fixed, Objective
from dlvm.nets.arguments import count, real


class TVO(Objective):
    """The thermodynamic variational objective, by a left Riemann sum with K particles.

        sum_j (b_{j+1} - b_j) E_{pi_j} log w,   pi_j ~ q^(1 - b_j) p^(b_j),   0 = b_0 < ... < b_J = 1

    A lower bound on log p(x): the integral over b from 0 to 1 is log p(x), and what is integrated rises. Expectations
    are by self-normalised weights w_k^(b_j); so estimated it stays between the ELBO and L_K, is the ELBO with one
    interval, and L_K with ever more of them. This is the exact gradient of that estimate; the authors' covariance
    estimator is another, for the limit of many particles.

    Args:
        num_particles: K.
        intervals: J; the points are 0 and J - 1 more, log-spaced from ``first`` on.
        first: the smallest point above 0.
        estimator: of the gradient, see ``Objective``.

    Raises:
        ValueError: ``intervals`` is below 1, or ``first`` is not between 0 and 1.

    References:
        The Thermodynamic Variational Objective, Masrani, Le, Wood, 2019, arXiv:1907.00031.
    """

    intervals, first = Fixed(), Fixed()

    def __init__(
        self,
        num_particles: int = 5,
        intervals: int = 5,
        first: float = 0.05,
        estimator: Estimator | None = None,
    ):
        count(intervals=intervals)
        real(first=first)
        if not 0 < first < 1:
            raise ValueError(f"intervals must be at least 1 and first between 0 and 1, got {intervals} and {first}")
        self.intervals, self.first = intervals, first
        rest = [first ** (1 - j / (intervals - 1)) for j in range(intervals - 1)]
        path = _Path((0.0, *rest, 1.0))
        bound = Bound(path.value, linear=intervals == 1, curvature=path.curvature)
        super().__init__(bound, num_particles, estimator)

    def _settings(self) -> list[str]:
        return [*super()._settings(), f"intervals={self.intervals}", f"first={self.first}"]


@dataclass(frozen=True)
class _Path:
    """The bound of ``TVO`` and its formulas.

    Attributes:
        points: b_0 .. b_J.
    """

    points: tuple[float, ...]

    @property
    def steps(self) -> list[tuple[float, float]]:
        """(b_j, b_{j+1} - b_j)."""
        return [(b, after - b) for b, after in zip(self.points[:-1], self.points[1:], strict=True)]

    def value(self, log_w: Tensor) -> Tensor:
        first, *rest = (length * _expected(log_w, b) for b, length in self.steps)
        return sum(rest, first)

    def curvature(self, log_w: Tensor) -> Tensor:
        log_w, total = log_w.clamp_min(torch.finfo(log_w.dtype).min), torch.zeros_like(log_w)
        for b, length in self.steps:
            share = (b * log_w).softmax(0)
            lift = 1 + b * (log_w - (share * log_w).sum(0))  # the slope is share * lift
            total += length * b * share * ((1 - share) * lift + 1 - share * lift)
        return total


def _expected(log_w: Tensor, b: float) -> Tensor:
    """E log w under weights w^b, shape (batch,)."""
    if b == 0:
        return log_w.mean(0)
    log_w = log_w.clamp_min(torch.finfo(log_w.dtype).min)
    return ((b * log_w).softmax(0) * log_w).sum(0)
