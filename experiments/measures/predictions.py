"""How good predictions are: right classes and honest probabilities, near means and honest spreads."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BINS = 15
LEVELS = (0.5, 0.9)


class Classified(NamedTuple):
    """Predicted classes against the true ones.

    Attributes:
        accuracy: share of data whose most probable class is the true one.
        ece: expected calibration error, mean over data of |accuracy - confidence| of their bin.
        log_py: log-probability of the true class, mean over data, nats.
        confidence, right, number: of each bin that holds data: mean probability of the most probable class, share of
            data for which it is the true one, and how many there are.
    """

    accuracy: float
    ece: float
    log_py: float
    confidence: Tensor
    right: Tensor
    number: Tensor


def classified(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> Classified:
    """Accuracy and calibration of predicted classes.

        ECE = sum_b n_b / n |right_b - confidence_b|,   bins of equal width of the highest probability

    Args:
        probabilities: shape (n, classes), rows that sum to 1.
        labels: shape (n,), whole numbers below classes.
        bins: how many.

    References:
        On Calibration of Modern Neural Networks, Guo, Pleiss, Sun, Weinberger, 2017, arXiv:1706.04599.

    Example:
        >>> found = classified(torch.tensor([[0.75, 0.25]]).expand(4, 2), torch.tensor([0, 0, 0, 1]))
        >>> found.accuracy, found.ece
        (0.75, 0.0)
    """
    p = probabilities.double()
    top, chosen = p.max(1)
    hit = (chosen == labels).double()
    at = (top * bins).ceil().long().clamp(1, bins) - 1
    number = torch.bincount(at, minlength=bins)
    some = number > 0
    confidence, right = (
        torch.zeros(bins, dtype=p.dtype).index_add_(0, at, each)[some] / number[some] for each in (top, hit)
    )
    ece = (number[some] / len(p) * (right - confidence).abs()).sum().item()
    log_py = p.gather(1, labels[:, None]).log().mean().item()
    return Classified(hit.mean().item(), ece, log_py, confidence, right, number[some])


def coverage(y: Tensor, mean: Tensor, sd: Tensor, levels: tuple[float, ...] = LEVELS) -> dict[float, float]:
    """Share of numbers inside the central intervals of their Gaussian predictions, which should be the level.

    Args:
        y, mean, sd: of one shape.
        levels: probabilities of the intervals.

    Example:
        >>> coverage(torch.tensor([0.0, 5.0]), torch.zeros(2), torch.ones(2), (0.9,))
        {0.9: 0.5}
    """
    away = ((y - mean) / sd).abs().double()
    half = {level: torch.special.ndtri(torch.tensor(0.5 + level / 2, dtype=torch.float64)) for level in levels}
    return {level: (away <= bound).double().mean().item() for level, bound in half.items()}
