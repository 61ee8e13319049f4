"""Guides of one model: how far each bound stays below log p(x), and which differences are more than noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

WIDTH = 2.0  # standard errors on either side of a difference


class Difference(NamedTuple):
    """By how much one guide's gap exceeds another's, nats per datum, with an interval of two standard errors."""

    value: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Gaps:
    """KL(q(z | x) || p(z | x)) of a guide trained several times on one model.

    Args:
        label: of the guide.
        values: shape (seeds, data), nats.
        valid: bound on the validation data of each of these runs, nats per datum.
    """

    label: str
    values: Tensor
    valid: Sequence[float]

    @property
    def mean(self) -> float:
        """Over seeds and data, nats per datum."""
        return self.values.mean().item()

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds; None of one."""
        return self.values.mean(1).std().item() if len(self.values) > 1 else None

    @property
    def chosen(self) -> int:
        """The run that validation data like best."""
        return max(range(len(self.valid)), key=lambda run: self.valid[run])

    def beyond(self, other: Gaps) -> Difference:
        """How much larger these gaps are than another guide's on the same data.

        The error has two parts: that of the mean over data, paired datum by datum, and that of the mean over seeds.
        """
        paired = self.values.mean(0) - other.values.mean(0)
        parts = [paired.var() / len(paired)] if len(paired) > 1 else []
        parts += [one.values.mean(1).var() / len(one.values) for one in (self, other) if len(one.values) > 1]
        error = math.sqrt(sum(part.item() for part in parts))
        value = paired.mean().item()
        return Difference(value, value - WIDTH * error, value + WIDTH * error)


def typical(found: Sequence[Gaps], number: int) -> Tensor:
    """The data whose gap, a mean over guides and seeds, is nearest to the median; their positions, (number,)."""
    each = torch.stack([gaps.values.mean(0) for gaps in found]).mean(0)
    return (each - each.median()).abs().argsort()[:number]


def headline(found: Sequence[Gaps], on: str) -> str:
    """Which guide is tightest; two that the data and seeds do not tell apart are both named."""
    first, *others = sorted(found, key=lambda gaps: gaps.mean)
    alike = [first.label, *(gaps.label for gaps in others if not gaps.beyond(first).sure)]
    below = f"{first.mean:.3f} nats below log p(x)"
    if not others:
        return f"{first.label} stays {below} on {on}"
    if len(alike) == 1:
        return f"{first.label} gives the tightest bound on {on}: {below}"
    return f"{', '.join(alike[:-1])} and {alike[-1]} give the tightest bounds on {on}, alike within the noise: {below}"


def order(found: Sequence[Gaps]) -> str:
    """All gaps from the smallest up, with what each exceeds the one before by."""
    ranked = sorted(found, key=lambda gaps: gaps.mean)
    said = [f"{ranked[0].label} {ranked[0].mean:.3f}"]
    said += [f"{gaps.label} {gaps.mean:.3f} (more by {gaps.beyond(less)})" for less, gaps in pairwise(ranked)]
    return ", ".join(said)


def behind_a_case(found: Sequence[Gaps], within: Mapping[str, Sequence[str]]) -> list[str]:
    """Of a family that holds another and yet ends behind it: that this is the training of its encoder, not its shape.

    Args:
        found: the guides.
        within: {label: labels of the families that are cases of this one}.
    """
    by_label = {gaps.label: gaps for gaps in found}
    pairs = [(by_label[rich], by_label[poor]) for rich in by_label for poor in within.get(rich, ()) if poor in by_label]
    return [
        f"{rich.label} ends behind {poor.label} by {rich.beyond(poor)}, although {poor.label} is a case of it: "
        "what it lacks here is training, or an encoder that carries over to new data, not shape"
        for rich, poor in pairs
        if rich.beyond(poor).low > 0
    ]
