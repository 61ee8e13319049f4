"""Classes of which some data have a label: what is known of them, and a class that is drawn only where it is not."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dlvm.distributions.categorical import OneHotDraws

ABSENT = -1  # what stands for a label that is not there, beside NaN


class Labels(NamedTuple):
    """Labels as programs use them.

    Attributes:
        one_hot: shape (batch, classes); the first class where there is no label.
        known: shape (batch,), whether there is one.
    """

    one_hot: Tensor
    known: Tensor

    def given(self, logits: Tensor) -> OneHotDraws:
        """The class where it is known, with certainty; elsewhere one of these logits, shape (*batch, classes).

        Other classes than the label have a probability of 0, whose logarithm stays a finite number, so that sums over
        classes and relaxed draws have gradients.
        """
        never = torch.finfo(logits.dtype).min / 8
        certain = (1 - self.one_hot.to(logits)) * never
        return OneHotDraws(logits=torch.where(self.known[:, None], certain, logits))

    def log_prob(self, logits: Tensor) -> Tensor:
        """log-probability of each label under logits, shape (*batch); 0 where there is none."""
        return torch.where(self.known, (logits.log_softmax(-1) * self.one_hot.to(logits)).sum(-1), 0.0)


def labels_of(y: object, classes: int, rows: int) -> Labels:
    """Reads labels: one for each datum, -1 or NaN where it has none.

    Args:
        y: shape (rows,); integers, whole floats, or truth values where there are two classes. Or one-hot vectors, shape
            (rows, classes), zeros or NaN where there is no label.
        classes: how many there are, 0 to classes - 1.
        rows: how many data there are.

    Raises:
        TypeError: ``y`` is no tensor of real numbers.
        ValueError: it has another shape, or a label is neither a class nor absent.

    Example:
        >>> labels_of(torch.tensor([1.0, float("nan"), -1.0]), 2, 3).known
        tensor([ True, False, False])
    """
    if not isinstance(y, Tensor) or y.is_complex():
        got = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(f"y must be a tensor of labels, one for each datum, got {got}; pass torch.as_tensor(labels)")
    if y.shape == (rows, classes) and classes > 1:
        y = _numbers(y)
    if y.dim() != 1 or len(y) != rows:
        raise ValueError(
            f"y must have one label for each of {rows} data, shape ({rows},), or one-hot vectors, ({rows}, {classes}), "
            f"got {tuple(y.shape)}; pass the numbers of the classes, and -1 where there is no label"
        )
    if y.dtype == torch.bool and classes != 2:
        raise ValueError(f"y of truth values is for 2 classes, got {classes}; pass the numbers of the classes")
    if not y.is_floating_point():
        y = y.long()  # -1 is no value of unsigned integers
    known = (y != ABSENT) & (y == y)
    label = torch.where(known, y, 0)
    numbers = torch.arange(classes, device=y.device)
    one_hot = label[:, None] == numbers
    if not bool(one_hot.any(-1).all()):
        wrong = label[~one_hot.any(-1)][0].item()
        raise ValueError(
            f"y must hold classes 0 to {classes - 1}, or -1 or NaN where there is no label, got {wrong}; number the "
            "classes from 0, or make the model with more classes"
        )
    return Labels(one_hot.to(torch.get_default_dtype()), known)


def _numbers(one_hot: Tensor) -> Tensor:
    """Classes of one-hot vectors, -1 where there is none; (rows, classes) -> (rows,)."""
    found = torch.where(one_hot == one_hot, one_hot, 0)
    some = (found != 0).sum(-1)
    if not bool(((found == 0) | (found == 1)).all() & (some <= 1).all()):
        raise ValueError("y of two dimensions must be one-hot vectors, zeros where there is no label; pass classes")
    return torch.where(some > 0, found.long().argmax(-1), ABSENT)
