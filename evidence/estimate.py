"""An estimate of log p(x) datum by datum, and how far each may be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor

from dlvm.inference.bounds.importance import (
    WORST_KHAT,
    effective_sample_size,
    log_mean_bias,
    log_mean_exp,
    pareto_k,
    relative_variance,
)
from dlvm.inference.programs.batches import is_dense
from dlvm.inference.programs.chunks import Tick, walk
from dlvm.inference.programs.data_checks import check_rows
from dlvm.inference.programs.pair import Pair

SIDES = ("lower", "upper", "exact")
COLUMNS = ("log_px", "log_px_se", "ess", "khat")
SHOWN_BIAS = 0.0005


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
        log_px_bias: about how far ``log_px`` is off in expectation, see ``log_mean_bias``: too low for a lower bound,
            too high for an upper one; 0 where it is exact, None where it is not known.
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
    log_px_bias: Tensor | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.side, str) or self.side not in SIDES:
            raise ValueError(f"side must be one of {', '.join(SIDES)}, got {self.side!r}")
        for name in COLUMNS if self.log_px_bias is None else (*COLUMNS, "log_px_bias"):
            column = getattr(self, name)
            if not isinstance(column, Tensor) or column.dim() != 1 or len(column) != len(self.log_px):
                got = tuple(column.shape) if isinstance(column, Tensor) else type(column).__name__
                raise ValueError(f"{name} must be a tensor with one number per datum, shape (num_data,), got {got}")

    @classmethod
    def of_weights(cls, method: str, log_w: Tensor, side: str = "lower", **others: Any) -> Estimate:
        """From log importance weights, shape (num_samples, num_data), nats.

            lower: E[w] = p(x), log_px = log mean w        upper: E[w] = 1 / p(x), log_px = -log mean w

        Raises:
            ValueError: a datum has a weight that is NaN or infinite, or ``log_w`` is of another shape.
        """
        if not is_dense(log_w) or log_w.dim() != 2 or not len(log_w):
            got = tuple(log_w.shape) if is_dense(log_w) else _kind(log_w)
            raise ValueError(f"log_w must be a tensor of shape (num_samples, num_data), at least one sample, got {got}")
        log_w = log_w.double()
        if (wrong := log_w.isnan() | (log_w == math.inf)).any():
            kind = "NaN" if log_w.isnan().any() else "infinite"
            raise ValueError(
                f"{int(wrong.any(0).sum())} data have {kind} weights: log_w, and with it the model's or the guide's "
                "parameters or the data, are not finite; look at the run that produced them"
            )
        sign = -1.0 if side == "upper" else 1.0
        variance, khat = relative_variance(log_w), pareto_k(log_w)
        return cls(
            method,
            side,
            sign * log_mean_exp(log_w),
            variance.sqrt(),
            effective_sample_size(log_w),
            khat,
            len(log_w),
            **({"log_px_bias": log_mean_bias(variance, khat)} | others),
        )

    @classmethod
    def exactly(cls, method: str, log_px: Tensor, **others: Any) -> Estimate:
        """From values that are no estimates, shape (num_data,)."""
        if not is_dense(log_px) or log_px.isnan().any():
            got = "NaN" if is_dense(log_px) else _kind(log_px)
            raise ValueError(f"log_px must be a tensor of numbers, shape (num_data,), got {got}; leave such data out")
        log_px = log_px.double()
        unknown = torch.full_like(log_px, math.nan)
        none = torch.zeros_like(log_px)
        return cls(method, "exact", log_px, none, unknown, unknown, 1, **({"log_px_bias": none} | others))

    @classmethod
    def joined(cls, parts: Iterable[Estimate], seconds: float, asked: int | None = None) -> Estimate:
        """One method's estimates of several batches, in their order."""
        parts = list(parts)
        if not parts:
            raise ValueError("data hold no batch; pass a tensor or a loader with at least one datum")
        if len(sides := {part.side for part in parts}) > 1:
            raise ValueError(f"parts must have one side, got {sorted(sides)}; join bounds of each side by themselves")
        columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in COLUMNS}
        biases = [part.log_px_bias for part in parts if part.log_px_bias is not None]
        return cls(
            parts[0].method,
            parts[0].side,
            **columns,
            num_samples=parts[0].num_samples,
            seconds=seconds,
            asked=asked,
            log_px_bias=torch.cat(biases) if len(biases) == len(parts) else None,
        )

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
    def mean_bias(self) -> float:
        """How far ``mean`` is off in expectation, which more data do not lessen; NaN where it is not known."""
        return math.nan if self.log_px_bias is None else self.log_px_bias.mean().item()

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
            off = {"lower": "low", "upper": "high"}[self.side]
            bias = f", perhaps {self.mean_bias:.3f} too {off}" if self.mean_bias >= SHOWN_BIAS else ""
            text += (
                f" ± {self.mean_se:.3f}{bias}   ESS {self.ess.mean().item():.1f} of {self.num_samples}   {trust} of "
                f"{self.num_data} data"
            )
        done = "" if self.complete else f", interrupted after {self.num_data} of {self.asked} data"
        return f"{text}   ({self.method}, {self.seconds:.1f} s{done})"


def _kind(value: object) -> str:
    return f"{value.dtype} {value.layout} on {value.device}" if isinstance(value, Tensor) else type(value).__name__


@torch.no_grad()
def over(
    data: Tensor | Iterable,
    method: Callable[[tuple, Tick], Estimate],
    pair: Pair,
    rows: int,
    seed: int = 0,
    progress: bool = False,
    text: str = "estimating log p(x)",
) -> Estimate:
    """Applies a method to a few data at a time, see ``walk``. After Ctrl-C the estimate is of the data that were done.

    Returns:
        the estimates joined.

    Args:
        data, rows, seed, progress, text: see ``walk``.
        method: (arguments of at most ``rows`` data, tick) -> estimate of these.
        pair: whose model the data are held against.

    Raises:
        ValueError: there are no data, a batch is empty, or lies outside the likelihood's support.
    """
    found: list[Estimate] = []

    def work(part: tuple, tick: Tick) -> None:
        check_rows(pair, part, {})
        with pyro.validation_enabled(False):  # the data were held against the likelihood just now
            found.append(method(part, tick))

    walked = walk(data, pair, rows, work, seed, progress, text)
    return Estimate.joined(found, walked.seconds, walked.asked)
