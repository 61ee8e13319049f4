"""What estimators of log p(x) gave on one pair, and what each of them cost, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dlvm.evidence import BernoulliDecoder, Calibration, Estimate, GaussianDecoder, Sandwich, Views, exact, quadrature
from dlvm.evidence.annealing.step_sizes import FIRST_MOVES, MOST_MOVES, PILOT_CHAINS, PILOT_MOVES, PILOT_TEMPERATURES
from dlvm.evidence.mean import Measured
from dlvm.guides import latents


@dataclass
class Found:
    """What has been measured so far; nats per datum.

    Attributes:
        truth, why: the exact values of the test data, or why there are none.
        rows: one mapping per estimate.
        largest: {method: its estimate at the largest budget}.
        brackets: (start, temperatures, sandwich) on simulated data; real: the bounds of the test data.
        left_out: {method: why it does not work with this pair}.
        interrupted: whether something is missing.
    """

    truth: Estimate | None = None
    why: str = ""
    rows: list[dict] = field(default_factory=list)
    largest: dict[str, Estimate] = field(default_factory=dict)
    brackets: list[tuple[str, int, Sandwich]] = field(default_factory=list)
    real: Sandwich | None = None
    views: Views | None = None
    calibration: Calibration | None = None
    decoder: BernoulliDecoder | GaussianDecoder | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def result(self) -> dict:
        """Everything as plain numbers, for result.json."""
        one, held = self.views, self.calibration
        parts = ("elbo", "rate", "distortion", "information", "marginal_kl", "total_correlation", "unit_kl")
        return {
            "exact": None if self.truth is None else self.truth.mean,
            "exact_by": self.why if self.truth is None else self.truth.method,
            "estimates": self.rows,
            "left_out": self.left_out,
            "brackets": [bracket_row(*entry) for entry in self.brackets],
            "bounds": {} if self.real is None else {name: [e.mean, e.mean_se] for name, e in self.real.rows.items()},
            "views": {} if one is None else {name: (value := getattr(one, name)) and value[:2] for name in parts},
            "coverage": {} if held is None else {level: list(held.coverage(level)) for level in held.levels},
            "interrupted": self.interrupted,
        }


def known_value(model: Callable, data: Any, seed: int, progress: bool) -> tuple[Estimate | None, str]:
    """The exact log p(x) of data, from the model or by quadrature; or why there is none."""
    if callable(getattr(model, "log_px", None)):
        return exact(model, data), ""
    args = (data,) if isinstance(data, Tensor) else tuple(data[0]) if isinstance(data, list) else ()
    sites = latents(model, *args)
    if (size := sum(site.shape.numel() for site in sites.values())) > 2:
        what = f"{next(iter(sites))} has" if len(sites) == 1 else f"{', '.join(sites)} have"
        return None, f"{what} {size} dimensions, and quadrature takes at most 2"
    try:
        return quadrature(model, data, seed=seed, progress=progress), ""
    except ValueError as error:
        return None, str(error)


def annealing_cost(num_chains: int, temperatures: int, leaps: int) -> int:
    """Evaluations of p(x | z) per datum of ``annealed``, those that find step sizes included; most give a slope too."""
    pilot = min(PILOT_CHAINS, num_chains)
    taken = min(temperatures, PILOT_TEMPERATURES)
    moves = FIRST_MOVES + taken * min(MOST_MOVES, math.ceil(PILOT_MOVES / taken))
    return pilot * (1 + moves * leaps) + num_chains * (1 + (temperatures - 1) * leaps)


def row_of(method: str, budget: int, cost: int, found: Estimate, truth: Estimate | None) -> dict:
    """An estimate as plain numbers, beside the exact value if there is one."""
    row = {
        "method": method,
        "budget": budget,
        "evaluations": cost,
        "seconds": found.seconds,
        "log_px": found.mean,
        "log_px_se": found.mean_se,
        "log_px_bias": found.mean_bias,
        "side": found.side,
        "ess": found.ess.mean().item(),
        "num_samples": found.num_samples,
        "khat_bad": found.khat_bad,
        "num_data": found.num_data,
    }
    if truth is not None:
        off = found.log_px - truth.log_px[: found.num_data]
        error = Measured.mean(off.abs())
        row |= {"bias": off.mean().item(), "bias_se": found.mean_se, "error": error.value, "error_se": error.se}
    return row


def bracket_row(origin: str, temperatures: int, one: Sandwich) -> dict:
    """AIS and reverse AIS as plain numbers."""
    low, high = one.rows["AIS"], one.rows["reverse AIS"]
    width, se = one.gap("reverse AIS", "AIS")
    row = {"start": origin, "temperatures": temperatures, "width": width, "width_se": se}
    row |= {"lower": low.mean, "lower_se": low.mean_se, "upper": high.mean, "upper_se": high.mean_se}
    if "exact" in one.rows:
        row["exact"] = one.rows["exact"].mean
    return row | {"seconds": low.seconds + high.seconds}


def largest(rows: Sequence[Mapping]) -> Mapping:
    """The row whose lower bound is the largest even two standard errors further down, so that noise does not win."""
    return max(rows, key=lambda row: row["log_px"] - 2 * finite(row["log_px_se"]))


def finite(error: float) -> float:
    """A standard error, or 0 where there is none."""
    return error if math.isfinite(error) else 0.0
