"""How the distance of a bound from log p(x) is divided between a guide's family and its amortisation."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from evidence.estimate import Estimate

STILL = 0.01
SIGNS = {"lower": ">=", "upper": "<=", "exact": "="}
WORDS = {"lower": "at least ", "upper": "at most ", "exact": ""}


@dataclass(frozen=True)
class Difference:
    """How much one quantity is above another, datum by datum; tensors have shape (num_data,), in nats.

    Attributes:
        values: the differences.
        se: their Monte Carlo standard errors, common draws taken into account.
    """

    values: Tensor
    se: Tensor

    @classmethod
    def joined(cls, parts: Iterable[Difference]) -> Difference:
        parts = list(parts)
        return cls(torch.cat([part.values for part in parts]), torch.cat([part.se for part in parts]))

    @property
    def mean(self) -> float:
        """Mean over data, nats per datum."""
        return self.values.mean().item()

    @property
    def mean_se(self) -> float:
        """Monte Carlo standard error of ``mean``: of the samples, not of the choice of data."""
        return self.se.square().sum().sqrt().item() / len(self.se)

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.mean_se:.3f}"


@dataclass(frozen=True)
class Gaps:
    """Where a guide's bound loses what it lacks of log p(x).

        log p(x) - L[q] = (log p(x) - L[q*]) + (L[q*] - L[q]),   q* the best of the family for each datum

    Attributes:
        elbo: L[q] of the guide.
        best: L[q*], what was found of it.
        log_px: log p(x), or a bound on it: its ``side`` says which.
        approximation: log p(x) - L[q*], what the family cannot do.
        amortisation: L[q*] - L[q], what the encoder loses.
        total: log p(x) - L[q], the inference gap.
        richer: L of the best of a richer family, or None.
        gain: what the richer family takes off the approximation gap, or None.
        left: what the local optimisation still brought after its third quarter, whose parameters' mean is what the end
            is held against; None where it was not made of steps.
        richer_left: the same for the richer family.
    """

    elbo: Estimate
    best: Estimate
    log_px: Estimate
    approximation: Difference
    amortisation: Difference
    total: Difference
    richer: Estimate | None = None
    gain: Difference | None = None
    left: Difference | None = None
    richer_left: Difference | None = None

    @property
    def converged(self) -> bool:
        """Whether the last part of the local optimisation brought less than 0.01 nats per datum."""
        return _still(self.left) and _still(self.richer_left)

    @property
    def next_step(self) -> str:
        """What to try next, in plain words."""
        if not _still(self.left):
            return "pass more steps: so far the amortisation gap is understated, and the approximation gap overstated"
        if not self.converged:
            return "pass more steps: so far it is understated what the richer family brings"
        if max(self.approximation.mean, self.amortisation.mean) < STILL:
            return "nothing to gain: the guide is as good as exact"
        if self.amortisation.mean > self.approximation.mean:
            return "a larger encoder, longer training, or Refined(...): most is lost by amortisation"
        return "a richer family, or IWAE's bound: most is lost by the family"

    def __str__(self) -> str:
        word = WORDS[self.log_px.side]
        lines = [
            f"log p(x) {SIGNS[self.log_px.side]} {_of(self.log_px)}   "
            f"best of the family {_of(self.best)}   ELBO {_of(self.elbo)}   nats per datum",
            f"inference gap {word}{self.total} = approximation {word}{self.approximation} (the family) + "
            f"amortisation {self.amortisation} (the encoder)",
        ]
        if self.gain is not None:
            lines.append(f"the richer family reaches {_of(self.richer)}, {self.gain} above the best of the family")
        if self.left is not None:
            found = "converged" if self.converged else "has not converged"
            lefts = " and ".join(str(left) for left in (self.left, self.richer_left) if left is not None)
            lines.append(f"local optimisation {found}: its last part brought {lefts} nats per datum")
        bad = self.log_px.khat_bad
        trust = "" if math.isnan(bad) or not bad else f", k-hat > 0.7 for {100 * bad:.0f} % of the data"
        lines.append(f"log p(x): {self.log_px.method}{trust}")
        done = "" if self.elbo.complete else f" (interrupted: the first {self.elbo.num_data} data only)"
        return "\n".join([*lines, f"next: {self.next_step}{done}"])


def _still(left: Difference | None) -> bool:
    return left is None or left.mean < STILL


def _of(estimate: Estimate) -> str:
    return f"{estimate.mean:.3f} ± {estimate.mean_se:.3f}"
