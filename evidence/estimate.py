"""An estimate of log p(x) datum by datum, and how far each may be trusted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from inference.importance import effective_sample_size, log_mean_exp, pareto_k, relative_variance

SIDES = ("lower", "upper", "exact")
WORST_KHAT = 0.7


@dataclass(frozen=True)
class Estimate:
    """log p(x) of every datum as one method has it; tensors have shape (num_data,), in nats where they are log p(x).

    Attributes:
        method: in a few words.
        side: what ``log_px`` is in expectation: "lower" or "upper" bound on log p(x), or "exact".
        log_px: the estimate.
        log_px_se: its Monte Carlo standard error; 0 where it is exact.
        ess: effective sample size, out of ``num_samples``; NaN where it is exact.
        khat: Pareto k of the weights; above 0.7 neither estimate nor error can be trusted; NaN where it is exact, or
            for fewer than 25 samples.
        num_samples: per datum.
        seconds: it took.
        asked: how many data there were; more than ``num_data`` after Ctrl-C, None where they were not counted.
    """

    method: str
    side: str
    log_px: Tensor
    log_px_se: Tensor
    ess: Tensor
    khat: Tensor
    num_samples: int
    seconds: float = 0.0
    asked: int | None = None

    def __post_init__(self) -> None:
        if self.side not in SIDES:
            raise ValueError(f"side must be one of {', '.join(SIDES)}, got {self.side!r}")

    @classmethod
    def of_weights(cls, method: str, log_w: Tensor, side: str = "lower", **others) -> Estimate:
        """From log importance weights, shape (num_samples, num_data), nats.

            lower: E[w] = p(x), log_px = log mean w        upper: E[w] = 1 / p(x), log_px = -log mean w

        Raises:
            ValueError: a datum has a weight that is NaN.
        """
        log_w = log_w.double()
        if log_w.isnan().any():
            raise ValueError(
                f"{int(log_w.isnan().any(0).sum())} data have NaN weights: the model's or the guide's parameters or "
                "the data are not finite; look at the run that produced them"
            )
        sign = -1.0 if side == "upper" else 1.0
        return cls(
            method,
            side,
            sign * log_mean_exp(log_w),
            relative_variance(log_w).sqrt(),
            effective_sample_size(log_w),
            pareto_k(log_w),
            len(log_w),
            **others,
        )

    @classmethod
    def exactly(cls, method: str, log_px: Tensor, **others) -> Estimate:
        """From values that are no estimates, shape (num_data,)."""
        log_px = log_px.double()
        unknown = torch.full_like(log_px, math.nan)
        return cls(method, "exact", log_px, torch.zeros_like(log_px), unknown, unknown, 1, **others)

    @classmethod
    def joined(cls, parts: Iterable[Estimate], seconds: float, asked: int | None = None) -> Estimate:
        """One method's estimates of several batches, in their order."""
        parts = list(parts)
        if not parts:
            raise ValueError("data hold no batch; pass a tensor or a loader with at least one datum")
        columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in COLUMNS}
        first = parts[0]
        return cls(first.method, first.side, **columns, num_samples=first.num_samples, seconds=seconds, asked=asked)

    @property
    def num_data(self) -> int:
        return len(self.log_px)

    @property
    def complete(self) -> bool:
        """Whether all data were done."""
        return self.asked is None or self.num_data == self.asked

    @property
    def mean(self) -> float:
        """log p(x), mean over data, nats per datum."""
        return self.log_px.mean().item()

    @property
    def mean_se(self) -> float:
        """Monte Carlo standard error of ``mean``: of the samples, not of the choice of data."""
        return self.log_px_se.square().sum().sqrt().item() / self.num_data

    @property
    def khat_bad(self) -> float:
        """Share of the data with k-hat above 0.7, out of those that have one; NaN where none has."""
        known = self.khat[~self.khat.isnan()]
        return (known > WORST_KHAT).double().mean().item() if len(known) else math.nan

    def __str__(self) -> str:
        sign = {"lower": ">=", "upper": "<=", "exact": "="}[self.side]
        text = f"log p(x) {sign} {self.mean:.3f}"
        if self.side != "exact":
            trust = "no k-hat" if math.isnan(self.khat_bad) else f"k-hat > 0.7 for {100 * self.khat_bad:.0f} %"
            text += (
                f" ± {self.mean_se:.3f}   ESS {self.ess.mean().item():.1f} of {self.num_samples}   {trust} of "
                f"{self.num_data} data"
            )
        done = "" if self.complete else f", interrupted after {self.num_data} of {self.asked} data"
        return f"{text}   ({self.method}, {self.seconds:.1f} s{done})"


COLUMNS = ("log_px", "log_px_se", "ess", "khat")
