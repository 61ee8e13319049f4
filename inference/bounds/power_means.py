"""Power means of weights, 1/a log 1/K sum_k w_k^a, with what estimators ask of a bound in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dlvm.inference.bounds.importance import log_mean_exp

SMALL = 0.03


def power_mean(log_w: Tensor, power: float = 1.0) -> Tensor:
    """1/a log 1/K sum_k w_k^a, shape (num_particles, batch) -> (batch,); the mean of log w for a = 0."""
    if power == 0:
        return log_w.mean(0)
    if abs(power) < SMALL:
        top, lifts = _lifts(log_w, power)
        return top + lifts.mean(0).log1p() / power
    return log_mean_exp(log_w) if power == 1 else log_mean_exp(power * log_w) / power


def power_curvatures(log_w: Tensor, power: float = 1.0) -> Tensor:
    """a (c - c^2) with c = softmax(a log w): second derivatives of ``power_mean``, (num_particles, batch)."""
    if power == 0:
        return torch.zeros_like(log_w)
    share = (power * log_w).softmax(0)
    return power * share * (1 - share)


def power_left_out(log_w: Tensor, replacement: Tensor, power: float = 1.0) -> Tensor:
    """``power_mean`` with log w_k replaced, for each k: (num_particles, batch), for replacements of that shape."""
    if power == 0:
        return log_w.mean(0) + (replacement - log_w) / len(log_w)
    if abs(power) < SMALL:
        top, lifts = _lifts(log_w, power)
        others = lifts.sum(0) - lifts + torch.expm1(power * (replacement - top))
        return top + (others / len(log_w)).log1p() / power
    rest = log_sum_of_others(power * log_w)
    return (rest.logaddexp(power * replacement) - math.log(len(log_w))) / power


def _lifts(log_w: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """The largest log w (batch,), and (w / largest)^a - 1: a mean that is near 1 for small a loses its digits."""
    top = log_w.detach().amax(0)
    top = top.masked_fill(top == -math.inf, 0.0)
    return top, torch.expm1(power * (log_w - top))


def log_sum_of_others(log_w: Tensor) -> Tensor:
    """log sum_{j != k} w_j for each of at least two particles k, (num_particles, batch).

    The largest weight has its others summed apart, so that nothing cancels.
    """
    top = log_w.argmax(0, keepdim=True)
    largest = log_w.gather(0, top)
    w = (log_w - largest).exp().scatter(0, top, 0.0)
    others = largest + (1 + w.sum(0) - w).log()
    return others.scatter(0, top, log_w.scatter(0, top, -math.inf).logsumexp(0, keepdim=True))


def means_of_others(log_w: Tensor) -> Tensor:
    """mean_{j != k} log w_j for each of at least two particles k: the logarithm of the others' geometric mean."""
    vanished = log_w == -math.inf
    finite = log_w.masked_fill(vanished, 0.0)
    mean = (finite.sum(0) - finite) / (len(log_w) - 1)
    return mean.masked_fill(vanished.sum(0) > vanished.int(), -math.inf)
