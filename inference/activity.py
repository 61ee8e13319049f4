"""Which latent dimensions say something of x."""

from __future__ import annotations

from torch import Tensor

ACTIVE_VARIANCE = 0.01


def spread_of(means: Tensor, noise: Tensor) -> Tensor:
    """The variance over data of posterior means, less what their own noise adds to it.

    Returns:
        shape (units,).

    Args:
        means: of each datum's particles, shape (num_data, units).
        noise: the sampling variance of these means, of the same shape.
    """
    return means.var(0, correction=0) - noise.mean(0)


def count_active(spread: Tensor) -> int:
    """Units whose posterior mean varies over data by more than 0.01.

    References:
        Importance Weighted Autoencoders, Burda, Grosse, Salakhutdinov, 2016, section 5.1, arXiv:1509.00519.
    """
    return int((spread > ACTIVE_VARIANCE).sum())
