"""Which particles of a filter go on: drawn anew by their weights, where these have become unequal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from dlvm.nets.arguments import real

Scheme = Literal["multinomial", "stratified", "systematic"]


@dataclass(frozen=True)
class Resampling:
    """Particles are drawn anew by their weights wherever the effective sample size has fallen low.

        E[number of copies of particle k] = K W_k,   each datum by itself, before a step where ESS <= below K

    The estimate of p(x) is unbiased with each scheme and threshold.

    Args:
        scheme: "multinomial", K independent draws; "stratified", one from each Kth of the distribution function;
            "systematic", at one place in each Kth, which has the least noise.
        below: share of the particles at which the effective sample size asks for it: 1 is before every step, 0 never,
            which is importance sampling of whole sequences.

    Raises:
        ValueError: an unknown scheme, or ``below`` does not lie between 0 and 1.
        TypeError: ``below`` is no number.

    References:
        Novel Approach to Nonlinear/Non-Gaussian Bayesian State Estimation, Gordon, Salmond, Smith, 1993.
        A Tutorial on Particle Filtering and Smoothing: Fifteen Years Later, Doucet, Johansen, 2009.

    Example:
        >>> Resampling(below=1.0).ancestors(torch.tensor([[0.0], [-torch.inf]])).tolist()
        [[0], [0]]
    """

    scheme: Scheme = "systematic"
    below: float = 0.5

    def __post_init__(self) -> None:
        if self.scheme not in get_args(Scheme):
            raise ValueError(f"scheme must be one of {', '.join(get_args(Scheme))}, got {self.scheme!r}")
        real(below=self.below)
        if not 0 <= self.below <= 1:
            raise ValueError(f"below must lie between 0 (never) and 1 (before each step), got {self.below}")

    def ancestors(self, log_w: Tensor) -> Tensor:
        """Which particle each new one is a copy of, shape (num_particles, batch), for log-weights of that shape.

        Where all weights are 0, all are taken for equal.
        """
        weights = shares(log_w.detach())
        places = torch.rand_like(weights[:1] if self.scheme == "systematic" else weights)
        if self.scheme != "multinomial":
            kth = torch.arange(len(weights), dtype=weights.dtype, device=weights.device).unsqueeze(-1)
            places = (kth + places) / len(weights)
        last = 1 - torch.finfo(weights.dtype).eps / 2
        sums = weights.cumsum(0)
        sums = (sums / sums[-1]).mT.contiguous()
        found = torch.searchsorted(sums, places.clamp(max=last).mT.contiguous(), right=True)
        return found.mT

    def wanted(self, log_w: Tensor) -> Tensor:
        """Whether a datum's particles are to be drawn anew, shape (batch,)."""
        if self.below in (0, 1):
            return torch.full_like(log_w[0], self.below, dtype=torch.bool)
        return effective(log_w.detach()) <= self.below * len(log_w)


def shares(log_w: Tensor) -> Tensor:
    """Weights that sum to 1, (num_particles, batch); equal ones where all are 0."""
    dead = (log_w == -math.inf).all(0)
    return torch.where(dead, 0, log_w).softmax(0)


def effective(log_w: Tensor) -> Tensor:
    """The effective sample size, from 1 to K, shape (batch,)."""
    return 1 / shares(log_w).square().sum(0)
