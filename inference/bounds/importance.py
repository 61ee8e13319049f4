"""What a set of importance weights says: log p(x), its standard error, and whether to trust it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

WORST_KHAT = 0.7
HEAVIEST = 0.95


def log_mean_exp(log_w: Tensor) -> Tensor:
    """log 1/K sum_k w_k over the first dimension: (num_particles, batch) -> (batch,), nats."""
    return log_w.logsumexp(0) - math.log(len(log_w))


def relative_variance(log_w: Tensor) -> Tensor:
    """Variance of ``log_mean_exp`` to first order in 1/K: that of the mean weight over its square, shape (batch,)."""
    count = len(log_w)
    if count < 2:
        return torch.full_like(log_w[0], math.nan)
    w = (log_w - log_w.amax(0)).exp()
    return w.var(0) / w.mean(0).square() / count


def effective_sample_size(log_w: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2, between 1 and K; shape (batch,)."""
    return (2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)).exp()


def pareto_k(log_w: Tensor) -> Tensor:
    """Shape of a generalised Pareto distribution fitted to the largest weights of each datum.

    Below 0.5 the weights have finite variance; above 0.7 the estimate of log p(x) and its standard error cannot be
    trusted. NaN where fewer than 5 weights make up the tail (K < 25) or the tail is constant.

    Returns:
        shape (batch,).

    Args:
        log_w: shape (num_particles, batch), nats.

    References:
        Pareto Smoothed Importance Sampling, Vehtari, Simpson, Gelman, Yao, Gabry, 2024, arXiv:1507.02646.
        A New and Efficient Estimation Method for the Generalized Pareto Distribution, Zhang, Stephens, 2009.
    """
    count = len(log_w)
    tail = int(min(0.2 * count, 3 * math.sqrt(count)))
    if tail < 5:
        return torch.full_like(log_w[0], math.nan)
    top = log_w.double().sort(0).values[-tail - 1 :]
    w = (top - top[-1]).exp()
    k = _fit_pareto(w[1:] - w[0])
    return k.to(log_w.dtype)


def log_mean_bias(variance: Tensor, khat: Tensor) -> Tensor:
    """About how far ``log_mean_exp`` is too low in expectation, from its variance and the tail; shape (batch,).

        bias ~ variance / 2,   times k / (1 - k) where k-hat is above 0.7;   k = k-hat, at most 0.95

    The first is what remains to first order in 1/K. Means of weights with a tail of k > 1/2 come near their limit as
    K^-(1/k - 1) rather than as 1/K, so that k / (1 - k) times as much is still to come. For weights whose tail only
    looks heavy, as those of a prior much wider than the posterior, this is too much.
    """
    k = khat.clamp(max=HEAVIEST)
    return variance / 2 * torch.where(khat > WORST_KHAT, k / (1 - k), 1.0)


def _fit_pareto(excess: Tensor) -> Tensor:
    """Zhang and Stephens' estimate of k for sorted excesses, shape (n, batch), with a weak prior towards 0.5."""
    n = len(excess)
    points = 30 + int(math.sqrt(n))
    quartile, largest = excess[int(n / 4 + 0.5) - 1], excess[-1]
    grid = 1 - torch.sqrt(points / (torch.arange(1, points + 1, dtype=excess.dtype, device=excess.device) - 0.5))
    theta = 1 / largest + grid[:, None] / (3 * quartile)
    k = torch.log1p(-theta[:, None] * excess).mean(1)
    likelihood = n * (torch.log(-theta / k) - k - 1)
    weight = likelihood.softmax(0)
    best = (theta * weight).sum(0)
    k = torch.log1p(-best * excess).mean(0)
    return k * n / (n + 10) + 10 * 0.5 / (n + 10)
