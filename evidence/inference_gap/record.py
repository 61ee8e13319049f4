"""How the distance of a bound from log p(x) is divided between a guide's family and its amortisation."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from dlvm.evidence.estimate import COLUMNS, Estimate

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
        if self.richer is not None and self.gain is not None:
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


def divided(weights: list[Tensor], early: list[Tensor], log_px: Estimate | None) -> Gaps:
    """The gaps from log-weights of the guide, the best local one, and perhaps that of a richer family.

    Args:
        weights: of each guide, shape (num_particles, num_data), nats; draws of the same noise.
        early: of the local guides, what ``climb`` returned.
        log_px: None for the importance weights of that local guide whose bound is higher.
    """
    names = ("ELBO of the guide", "ELBO of the best local guide", "ELBO of the best of a richer family")
    bounds = [_elbo(name, log_w) for name, log_w in zip(names, weights, strict=False)]
    noise = [log_w - log_w.mean(0) for log_w in weights]
    lefts = [_gained(before, after) for before, after in zip(early, weights[1:], strict=True)]
    elbo, best, *more = bounds
    richer = more[0] if more else None
    if log_px is None:
        log_w = max(weights[1:], key=lambda log_w: log_w.mean().item())
        log_px = Estimate.of_weights("importance weights of the best local guide, a lower bound", log_w)
        noise_px = (log_w - log_px.log_px).exp() - 1
    else:
        noise_px = None
    return Gaps(
        elbo,
        best,
        log_px,
        approximation=_above(log_px, noise_px, best, noise[1]),
        amortisation=_above(best, noise[1], elbo, noise[0]),
        total=_above(log_px, noise_px, elbo, noise[0]),
        richer=richer,
        gain=None if richer is None else _above(richer, noise[2], best, noise[1]),
        left=lefts[0],
        richer_left=lefts[1] if len(lefts) > 1 else None,
    )


def _gained(before: Tensor, after: Tensor) -> Difference:
    return Difference((after - before).mean(0), (after - before).std(0) / math.sqrt(len(after)))


def _elbo(name: str, log_w: Tensor) -> Estimate:
    found = Estimate.of_weights(name, log_w)
    return replace(found, log_px=log_w.mean(0), log_px_se=log_w.std(0) / math.sqrt(len(log_w)), log_px_bias=None)


def _above(upper: Estimate, noise_upper: Tensor | None, lower: Estimate, noise_lower: Tensor) -> Difference:
    """A difference with its error: from each draw's part in both, or, where draws differ, from both errors."""
    if noise_upper is None:
        se = (upper.log_px_se.square() + lower.log_px_se.square()).sqrt()
    else:
        se = (noise_upper - noise_lower).std(0) / math.sqrt(len(noise_lower))
    return Difference(upper.log_px - lower.log_px, se)


def some(log_px: Estimate, start: int, count: int) -> Estimate:
    """An estimate of some of the data.

    Raises:
        ValueError: it is of fewer data.
    """
    if log_px.num_data < start + count:
        raise ValueError(
            f"log_px is of {log_px.num_data} data, and there are {start + count} or more; estimate it for all of them, "
            "or pass fewer data"
        )
    names = COLUMNS if log_px.log_px_bias is None else (*COLUMNS, "log_px_bias")
    return replace(log_px, **{name: getattr(log_px, name)[start : start + count] for name in names}, asked=None)


def joined(parts: list[Gaps], seconds: float, asked: int) -> Gaps:
    """The gaps of several batches, in their order."""

    def column(name: str) -> Estimate | Difference | None:
        columns = [getattr(part, name) for part in parts]
        if columns[0] is None:
            return None
        if isinstance(columns[0], Estimate):
            return Estimate.joined(columns, seconds, asked)
        return Difference.joined(columns)

    columns: dict[str, Any] = {field.name: column(field.name) for field in fields(Gaps)}
    return Gaps(**columns)
