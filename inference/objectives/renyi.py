"""The variational Renyi bound, and the largest weight."""

from __future__ import annotations

import math

from torch import Tensor

from dlvm.inference.bounds.bound import Bound, power_bound
from dlvm.inference.estimators.estimator import Estimator
from dlvm.inference.objectives.objective import Fixed, Objective
from dlvm.nets.arguments import real


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

    alpha = Fixed()

    def __init__(self, alpha: float = 0.5, num_particles: int = 5, estimator: Estimator | None = None):
        real(alpha=alpha)
        if not (math.isfinite(alpha) and alpha <= 1):
            raise ValueError(
                f"alpha must be finite and at most 1, got {alpha}: above 1 the bound needs E_q w^(1 - alpha), which is "
                "infinite wherever the guide has heavier tails than the posterior by enough; use 0 <= alpha <= 1, "
                "VRMax for minus infinity, or CUBO for an upper bound"
            )
        self.alpha = alpha
        super().__init__(power_bound(1 - alpha, "lower" if alpha >= 0 else "neither"), num_particles, estimator)

    def _settings(self) -> list[str]:
        return [f"alpha={self.alpha}", *super()._settings()]


class VRMax(Objective):
    """The Renyi bound at alpha = -inf as it is trained: the largest of K weights.

        E max_k log w_k >= L_K,   a bound on neither side of log p(x)

    Args:
        num_particles: K.
        estimator: of the gradient, see ``Objective``; slopes jump, so DReG is not defined.

    References:
        Renyi Divergence Variational Inference, Li, Turner, 2016, arXiv:1602.02311.
    """

    def __init__(self, num_particles: int = 5, estimator: Estimator | None = None):
        super().__init__(Bound(_largest, side="neither", smooth=False), num_particles, estimator)


def _largest(log_w: Tensor) -> Tensor:
    return log_w.max(0).values
