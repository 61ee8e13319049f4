"""The chi upper bound."""

from __future__ import annotations

import math

from dlvm.inference.bounds.bound import power_bound
from dlvm.inference.estimators.estimator import Estimator
from dlvm.inference.objectives.objective import Fixed, Objective
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

    order = Fixed()

    def __init__(self, order: float = 2.0, num_particles: int = 50, estimator: Estimator | None = None):
        real(order=order)
        if not 1 <= order < math.inf:
            raise ValueError(f"order must be finite and at least 1, got {order}; below 1 it is Renyi(1 - order)")
        self.order = float(order)
        super().__init__(power_bound(self.order, "upper"), num_particles, estimator)

    def _settings(self) -> list[str]:
        return [f"order={self.order:g}", *super()._settings()]
