"""What a step or an evaluation gives: numbers and tensors, and how far two of these are apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Outcome = tuple[list, list]

ROUNDING = 1e-5
SMALL_SHARE = 1e-3


def difference(expected: Outcome, found: Outcome, jointly: bool = False) -> float:
    """The largest relative distance between numbers, or between tensors; 0 if all tensors agree bit for bit.

    Tensors much smaller than the largest are held against a thousandth of that. Numbers that agree to rounding are the
    same. ``jointly``, all tensors are one vector: where rounding differs, a unit near its kink may change sides, which
    moves single small gradients far.
    """
    gaps = [abs(a - b) / max(abs(a), abs(b), 1e-30) for a, b in zip(expected[0], found[0], strict=True)]
    worst = max((gap for gap in gaps if gap > ROUNDING), default=0.0)
    pairs = [
        (a, b)
        for a, b in zip(expected[1], found[1], strict=True)
        if a is not None and not torch.equal(a, b) and not equal_with_nan(a, b)
    ]
    if not pairs:
        return worst
    norms = [_norm(a) for a in expected[1] if a is not None]
    if jointly:
        apart = math.hypot(*(_norm(a.double() - b.double()) for a, b in pairs)) / max(math.hypot(*norms), 1e-30)
        return math.inf if math.isnan(apart) else max(worst, apart)
    largest = max(norms)
    apart = [_norm(a.double() - b.double()) / max(_norm(a), SMALL_SHARE * largest, 1e-30) for a, b in pairs]
    return max(worst, *(math.inf if math.isnan(gap) else gap for gap in apart))


def _norm(value: Tensor) -> float:
    return torch.linalg.vector_norm(value.double()).item()


def equal_with_nan(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
