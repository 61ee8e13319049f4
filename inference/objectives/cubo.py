"""The chi upper bound."""

from __future__ import annotations

import math

from torch import Tensor

from dlvm.inference.bounds.power_means import means_of_others, power_curvatures, power_left_out, power_mean
from dlvm.inference.estimators.estimator import Coefficients, Estimator, assemble
from dlvm.inference.objectives.objective import Objective
from dlvm.inference.particles.particles import Particles
from dlvm.nets.arguments import real


class CUBO(Objective):
    """The chi upper bound, estimated by K particles; a guide lowers it, and the model is left alone.

        CUBO_n = 1/n log E_q w^n >= log p(x)

    An upper bound on log p(x) in the limit of many particles. Lowering it fits the guide by the divergence
    chi^n(p || q), which covers mass. The K-particle estimate lies below it in expectation, the lower the worse the
    guide: with few particles it can be lowered without end by moving the guide away (with one, it is the ELBO). Take
    tens of particles and DReG, or start from a guide that fits. It is no bound that a model could be trained on, so
    parameters of the model get no gradient: join it with a lower bound for them, as
    ``Separate(model=IWAE(50), guide=CUBO(2, 50, DReG()))``. As with every objective, ``loss`` is minus its value.

    Args:
        order: n, at least 1.
        num_particles: K.
        estimator: of the gradient, see ``Objective``.

    Raises:
        ValueError: ``order`` is below 1, or the estimator is a relaxation or wake-sleep.

    References:
        Variational Inference via chi Upper Bound Minimization, Dieng, Tran, Ranganath, Paisley, Blei, 2017,
        arXiv:1611.00328.

    Example:
        >>> import torch
        >>> CUBO(2.0, 2).bound(torch.tensor([[0.0], [0.0]]))
        tensor([0.])
    """

    lower, upper = False, True

    def __init__(self, order: float = 2.0, num_particles: int = 50, estimator: Estimator | None = None):
        real(order=order)
        if not 1 <= order < math.inf:
            raise ValueError(f"order must be finite and at least 1, got {order}; below 1 it is Renyi(1 - order)")
        self.order = float(order)
        super().__init__(num_particles, estimator)
        if not self.estimator.explicit:
            raise ValueError(f"{self.estimator!r} is not defined for CUBO; use Total(), DReG() or ScoreFunction()")

    def _settings(self) -> list[str]:
        return [f"order={self.order:g}", *super()._settings()]

    def bound(self, log_w: Tensor) -> Tensor:
        return power_mean(log_w, self.order)

    def curvatures(self, log_w: Tensor) -> Tensor:
        return power_curvatures(log_w, self.order)

    def left_out(self, log_w: Tensor) -> Tensor:
        return power_left_out(log_w, means_of_others(log_w), self.order)

    def coefficients(self, particles: Particles) -> Coefficients:
        """Downhill for the guide, nothing for the model."""
        found = super().coefficients(particles)
        downhill = (None if part is None else -part for part in (found.path, found.score, found.jump))
        return Coefficients(None, *downhill, found.extra)

    def surrogate(self, particles: Particles, bound: Tensor | None = None) -> Tensor:
        return assemble(self.coefficients(particles), particles)
