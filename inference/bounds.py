"""Bounds on log p(x) made of averages of the log-weights, or of averages of powers of the weights."""

from __future__ import annotations

import math

from torch import Tensor

from inference.estimators import Estimator
from inference.importance import log_mean_exp
from inference.objectives import Objective


class IWAE(Objective):
    """The importance-weighted bound.

        L_K = E log 1/K sum_k w_k,   ELBO = L_1 <= L_K <= L_{K+1} <= log p(x)

    A lower bound on log p(x).

    Args:
        num_particles: K.
        estimator: of the gradient, see ``Objective``.

    References:
        Importance Weighted Autoencoders, Burda, Grosse, Salakhutdinov, 2016, arXiv:1509.00519.

    Example:
        >>> import torch
        >>> IWAE(2).bound(torch.tensor([[0.0], [0.0]]))
        tensor([0.])
    """

    def __init__(self, num_particles: int = 5, estimator: Estimator | None = None):
        super().__init__(num_particles, estimator)

    def bound(self, log_w: Tensor) -> Tensor:
        return log_mean_exp(log_w)


class Renyi(Objective):
    """The variational Renyi bound (VR-alpha), estimated by K particles.

        L_alpha = 1 / (1 - alpha) log E_q w^(1 - alpha) = log p(x) - D_alpha(q(z | x) || p(z | x))

    For 0 < alpha <= 1 a lower bound on log p(x) and, at alpha = 1, the ELBO; log p(x) itself at alpha = 0; an upper
    bound for alpha < 0. The K-particle estimate is biased downwards for alpha < 1: at alpha = 0 it is IWAE, and below
    it is no bound at any K, neither lower nor upper. Raising it is what the authors propose for every alpha.

    Args:
        alpha: order, at most 1. Above 1, E_q w^(1 - alpha) need not be finite, and no estimate of it can be trusted.
        num_particles: K.
        estimator: of the gradient, see ``Objective``.

    Raises:
        ValueError: ``alpha`` is above 1 or not finite.

    References:
        Renyi Divergence Variational Inference, Li, Turner, 2016, arXiv:1602.02311.

    Example:
        >>> import torch
        >>> Renyi(0.5, 2).bound(torch.tensor([[0.0], [0.0]]))
        tensor([0.])
    """

    def __init__(self, alpha: float = 0.5, num_particles: int = 5, estimator: Estimator | None = None):
        if not (math.isfinite(alpha) and alpha <= 1):
            raise ValueError(
                f"alpha must be finite and at most 1, got {alpha}: above 1 the bound needs E_q w^(1 - alpha), which is "
                "infinite wherever the guide has heavier tails than the posterior by enough; use 0 <= alpha <= 1, "
                "VRMax for minus infinity, or CUBO for an upper bound"
            )
        self.alpha = alpha
        super().__init__(num_particles, estimator)

    @property
    def lower(self) -> bool:
        return self.alpha >= 0

    @property
    def linear(self) -> bool:
        return self.alpha == 1

    def _settings(self) -> list[str]:
        return [f"alpha={self.alpha}", *super()._settings()]

    def bound(self, log_w: Tensor) -> Tensor:
        if self.alpha == 1:
            return log_w.mean(0)
        return log_mean_exp((1 - self.alpha) * log_w) / (1 - self.alpha)


class VRMax(Objective):
    """The Renyi bound at alpha = -inf as it is trained: the largest of K weights.

        E max_k log w_k >= L_K,   a bound on neither side of log p(x)

    Args:
        num_particles: K.
        estimator: of the gradient, see ``Objective``; slopes jump, so DReG is not defined.

    References:
        Renyi Divergence Variational Inference, Li, Turner, 2016, arXiv:1602.02311.
    """

    lower, smooth = False, False

    def __init__(self, num_particles: int = 5, estimator: Estimator | None = None):
        super().__init__(num_particles, estimator)

    def bound(self, log_w: Tensor) -> Tensor:
        return log_w.max(0).values


class MIWAE(Objective):
    """The mean of M importance-weighted bounds of K particles each.

        E 1/M sum_m log 1/K sum_k w_mk = L_K <= log p(x)

    A lower bound on log p(x), as tight as IWAE(K), whose gradient has M times more particles to average over.

    Args:
        groups: M.
        num_particles: K in each group; M K are drawn.
        estimator: of the gradient, see ``Objective``.

    Raises:
        ValueError: ``groups`` or ``num_particles`` is not a positive integer.

    References:
        Tighter Variational Bounds are Not Necessarily Better, Rainforth et al., 2018, arXiv:1802.04537.
    """

    def __init__(self, groups: int = 8, num_particles: int = 8, estimator: Estimator | None = None):
        if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in (groups, num_particles)):
            raise ValueError(f"groups and num_particles must be positive integers, got {groups!r}, {num_particles!r}")
        self.groups, self.each = groups, num_particles
        super().__init__(groups * num_particles, estimator)

    @property
    def linear(self) -> bool:
        return self.each == 1

    def _settings(self) -> list[str]:
        return [f"groups={self.groups}", f"num_particles={self.each}"]

    def _by_group(self, log_w: Tensor) -> Tensor:
        """The bound of each group, (M K, batch) -> (M, batch)."""
        return log_mean_exp(log_w.unflatten(0, (self.groups, self.each)).transpose(0, 1))

    def bound(self, log_w: Tensor) -> Tensor:
        return self._by_group(log_w).mean(0)

    def signals(self, log_w: Tensor) -> Tensor:
        return self._by_group(log_w).repeat_interleave(self.each, 0) / self.groups


class CIWAE(Objective):
    """A mixture of the ELBO and the importance-weighted bound.

        beta ELBO + (1 - beta) L_K <= log p(x)

    A lower bound on log p(x), between both.

    Args:
        beta: share of the ELBO, between 0 and 1.
        num_particles: K, for both.
        estimator: of the gradient, see ``Objective``.

    Raises:
        ValueError: ``beta`` is not between 0 and 1.

    References:
        Tighter Variational Bounds are Not Necessarily Better, Rainforth et al., 2018, arXiv:1802.04537.
    """

    def __init__(self, beta: float = 0.5, num_particles: int = 5, estimator: Estimator | None = None):
        if not 0 <= beta <= 1:
            raise ValueError(f"beta must be between 0 and 1, got {beta}; it is the share of the ELBO")
        self.beta = beta
        super().__init__(num_particles, estimator)

    @property
    def linear(self) -> bool:
        return self.beta == 1

    def _settings(self) -> list[str]:
        return [f"beta={self.beta}", *super()._settings()]

    def bound(self, log_w: Tensor) -> Tensor:
        return self.beta * log_w.mean(0) + (1 - self.beta) * log_mean_exp(log_w)

    def signals(self, log_w: Tensor) -> Tensor:
        return self.beta * log_w / len(log_w) + (1 - self.beta) * log_mean_exp(log_w)


class TVO(Objective):
    """The thermodynamic variational objective, by a left Riemann sum with K particles.

        sum_j (b_{j+1} - b_j) E_{pi_j} log w,   pi_j ~ q^(1 - b_j) p^(b_j),   0 = b_0 < ... < b_J = 1

    A lower bound on log p(x): the integral over b from 0 to 1 is log p(x), and what is integrated rises. Expectations
    are by self-normalised weights w_k^(b_j); so estimated it stays between the ELBO and L_K, is the ELBO with one
    interval, and L_K with ever more of them. This is the exact gradient of that estimate; the authors' covariance
    estimator is another, for the limit of many particles.

    Args:
        num_particles: K.
        intervals: J; the points are 0 and J - 1 more, log-spaced from ``first`` on.
        first: the smallest point above 0.
        estimator: of the gradient, see ``Objective``.

    Raises:
        ValueError: ``intervals`` is below 1, or ``first`` is not between 0 and 1.

    References:
        The Thermodynamic Variational Objective, Masrani, Le, Wood, 2019, arXiv:1907.00031.
    """

    def __init__(
        self,
        num_particles: int = 5,
        intervals: int = 5,
        first: float = 0.05,
        estimator: Estimator | None = None,
    ):
        if not isinstance(intervals, int) or intervals < 1 or not 0 < first < 1:
            raise ValueError(f"intervals must be at least 1 and first between 0 and 1, got {intervals!r} and {first}")
        self.intervals, self.first = intervals, first
        rest = [first ** (1 - j / (intervals - 1)) for j in range(intervals - 1)]
        self.points = [0.0, *rest, 1.0]
        super().__init__(num_particles, estimator)

    @property
    def linear(self) -> bool:
        return self.intervals == 1

    def _settings(self) -> list[str]:
        return [*super()._settings(), f"intervals={self.intervals}", f"first={self.first}"]

    def bound(self, log_w: Tensor) -> Tensor:
        steps = zip(self.points[:-1], self.points[1:], strict=True)
        return sum((after - b) * ((b * log_w).softmax(0) * log_w).sum(0) for b, after in steps)
