"""Whether two samples are told apart, and how much of each the other covers."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

FEWEST = 20  # rows of a sample


class TwoSamples(NamedTuple):
    """A classifier two-sample test.

    Attributes:
        accuracy: of the classifier on rows that it was not fitted to; 1/2 where nothing tells the samples apart.
        error: its standard error, binomial.
    """

    accuracy: float
    error: float


class Covered(NamedTuple):
    """Shares of rows, between 0 and 1.

    Attributes:
        precision: of generated rows that lie where data lie.
        recall: of data that lie where generated rows lie.
    """

    precision: float
    recall: float


def c2st(one: Tensor, other: Tensor, seed: int = 0) -> TwoSamples:
    """How well a net of one hidden layer tells two samples apart, on rows held out.

    Half of the rows of each, of as many as both have, are fitted to; the accuracy is of the other half. Samples of one
    distribution give 1/2 within the error, whatever the net; that of others may be 1/2 if the net is too weak.

    Args:
        one, other: shapes (n, dim) and (m, dim).
        seed: of the split and the net.

    Raises:
        ValueError: samples have fewer than 20 rows, or not as many columns.

    References:
        Revisiting Classifier Two-Sample Tests, Lopez-Paz, Oquab, 2017, arXiv:1610.06545.
    """
    from sklearn.neural_network import MLPClassifier  # which --help need not wait for

    _check(one, other)
    n = min(len(one), len(other)) // 2 * 2
    generator = torch.Generator().manual_seed(seed)
    rows = [sample[torch.randperm(len(sample), generator=generator)[:n]] for sample in (one, other)]
    fitted, held = (torch.cat([part[half] for part in rows]) for half in (slice(n // 2), slice(n // 2, n)))
    loc, scale = fitted.mean(0), fitted.std(0).clamp_min(1e-6)
    labels = torch.arange(2).repeat_interleave(n // 2).numpy()
    net = MLPClassifier((64,), alpha=1e-2, max_iter=150, early_stopping=True, random_state=seed)
    net.fit(((fitted - loc) / scale).numpy(), labels)
    accuracy = float(net.score(((held - loc) / scale).numpy(), labels))
    return TwoSamples(accuracy, math.sqrt(max(accuracy * (1 - accuracy), 1 / n) / n))


def precision_recall(data: Tensor, generated: Tensor, neighbours: int = 3) -> Covered:
    """Improved precision and recall: rows that lie in a ball of the other sample, each as wide as its k-th neighbour.

    Args:
        data, generated: features, shapes (n, dim) and (m, dim); as many of both make the two shares comparable.
        neighbours: k.

    Raises:
        ValueError: samples have fewer than 20 rows, or not as many columns, or no row has so many neighbours.

    References:
        Improved Precision and Recall Metric for Assessing Generative Models, Kynkaanniemi, Karras, Laine, Lehtinen,
            Aila, 2019, arXiv:1904.06991.
    """
    _check(data, generated)
    if not 1 <= neighbours < min(len(data), len(generated)):
        raise ValueError(f"neighbours must be at least 1 and below the number of rows, got {neighbours}")

    def inside(rows: Tensor, sample: Tensor) -> float:
        radius = torch.cdist(sample, sample).kthvalue(neighbours + 1, dim=1).values  # the nearest is itself
        return (torch.cdist(rows, sample) <= radius).any(1).double().mean().item()

    return Covered(inside(generated, data), inside(data, generated))


class Components:
    """Principal components of data, as features to compare samples in.

    Args:
        x: shape (n, dim), what they are of.
        number: how many, at most.
    """

    def __init__(self, x: Tensor, number: int = 20):
        self.loc = x.mean(0)
        self.directions = torch.linalg.svd(x - self.loc, full_matrices=False).Vh[:number].T

    def __call__(self, x: Tensor) -> Tensor:
        """Shape (n, number)."""
        return (x - self.loc) @ self.directions


def _check(one: Tensor, other: Tensor) -> None:
    shapes = f"{tuple(one.shape)} and {tuple(other.shape)}"
    if one.dim() != 2 or one.shape[1:] != other.shape[1:] or min(len(one), len(other)) < FEWEST:
        raise ValueError(f"samples must have at least {FEWEST} rows and as many columns, got shapes {shapes}")
