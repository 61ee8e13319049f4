"""From log-weights of several guides for the same data to the gaps between their bounds."""

from __future__ import annotations

import math
from dataclasses import fields, replace

from torch import Tensor

from evidence.estimate import COLUMNS, Estimate
from evidence.gap_record import Difference, Gaps


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
    elbo, best, richer = (*bounds, None)[:3]
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
    return replace(found, log_px=log_w.mean(0), log_px_se=log_w.std(0) / math.sqrt(len(log_w)))


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
    return replace(log_px, **{name: getattr(log_px, name)[start : start + count] for name in COLUMNS}, asked=None)


def joined(parts: list[Gaps], seconds: float, asked: int) -> Gaps:
    """The gaps of several batches, in their order."""

    def column(name: str) -> Estimate | Difference | None:
        columns = [getattr(part, name) for part in parts]
        if columns[0] is None:
            return None
        if isinstance(columns[0], Estimate):
            return Estimate.joined(columns, seconds, asked)
        return Difference.joined(columns)

    return Gaps(**{field.name: column(field.name) for field in fields(Gaps)})
