"""The importance-weighted bound, and its kin: particles in groups, or mixed with the ELBO."""

from __future__ import annotations

from torch import Tensor

from dlvm.inference.bounds.power_means import means_of_others, power_curvatures, power_left_out, power_mean
from dlvm.inference.estimators.estimator import Estimator
from dlvm.inference.objectives.objective import Objective
from dlvm.inference.objectives.separate import Separate
from dlvm.nets.arguments import is_count, real


class MIWAE(Objective):
    """The mean of M importance-weighted bounds of K particles each.

        E 1/M sum_m log 1/K sum_k w_mk = L_K <= log p(x)

    A lower bound on log p(x), as tight as IWAE(K), whose gradient has M times more particles to average over.

    Args:
        groups: M.
        num_particles: K in each group. M K are drawn, which is what the attribute ``num_particles`` says.
        estimator: of the gradient, see ``Objective``.

    Raises:
        ValueError: ``groups`` or ``num_particles`` is not a positive integer.

    References:
        Tighter Variational Bounds are Not Necessarily Better, Rainforth et al., 2018, arXiv:1802.04537.
    """

    def __init__(self, groups: int = 8, num_particles: int = 8, estimator: Estimator | None = None):
        if not is_count(groups) or not is_count(num_particles):
            raise ValueError(f"groups and num_particles must be positive integers, got {groups!r}, {num_particles!r}")
        self.groups, self.each = int(groups), int(num_particles)
        super().__init__(groups * num_particles, estimator)

    @property
    def linear(self) -> bool:
        return self.each == 1

    def _settings(self) -> list[str]:
        return [f"groups={self.groups}", f"num_particles={self.each}"]

    def _grouped(self, log_w: Tensor) -> Tensor:
        """(M K, batch) -> (K, M, batch)."""
        return log_w.unflatten(0, (self.groups, self.each)).transpose(0, 1)

    def _flat(self, values: Tensor) -> Tensor:
        """(K, M, batch) -> (M K, batch), each group's part of the mean."""
        return values.transpose(0, 1).flatten(0, 1) / self.groups

    def bound(self, log_w: Tensor) -> Tensor:
        return power_mean(self._grouped(log_w)).mean(0)

    def signals(self, log_w: Tensor) -> Tensor:
        grouped = self._grouped(log_w)
        return self._flat(power_mean(grouped).expand_as(grouped))

    def curvatures(self, log_w: Tensor) -> Tensor:
        return self._flat(power_curvatures(self._grouped(log_w)))

    def left_out(self, log_w: Tensor) -> Tensor:
        others = means_of_others(log_w)
        if self.each == 1:
            return power_left_out(log_w, others, 0.0)
        without = power_left_out(self._grouped(log_w), self._grouped(others))
        return self.bound(log_w) - self.signals(log_w) + self._flat(without)


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
        real(beta=beta)
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
        return self._joined(log_w.mean(0), power_mean(log_w))

    def signals(self, log_w: Tensor) -> Tensor:
        return self._joined(log_w / len(log_w), power_mean(log_w).expand_as(log_w))

    def curvatures(self, log_w: Tensor) -> Tensor:
        return (1 - self.beta) * power_curvatures(log_w)

    def left_out(self, log_w: Tensor) -> Tensor:
        linear, tight = (power_left_out(log_w, means_of_others(log_w), power) for power in (0.0, 1.0))
        return self._joined(linear, tight)

    def _joined(self, linear: Tensor, tight: Tensor) -> Tensor:
        """Both bounds by their shares; a bound without a share may be infinite."""
        if self.beta in (0, 1):
            return linear if self.beta else tight
        return self.beta * linear + (1 - self.beta) * tight


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
        return power_mean(log_w)

    def curvatures(self, log_w: Tensor) -> Tensor:
        return power_curvatures(log_w)

    def left_out(self, log_w: Tensor) -> Tensor:
        return power_left_out(log_w, means_of_others(log_w))


def PIWAE(groups: int = 8, num_particles: int = 8, estimator: Estimator | None = None) -> Separate:
    """Partially importance-weighted: IWAE of all M K particles for the model, MIWAE of M groups for the guide.

    What it reports is L_{M K}, a lower bound on log p(x).

    Args:
        groups: M.
        num_particles: K in each group.
        estimator: of the guide's gradient, see ``Objective``.

    References:
        Tighter Variational Bounds are Not Necessarily Better, Rainforth et al., 2018, arXiv:1802.04537.
    """
    grouped = MIWAE(groups, num_particles, estimator)
    return Separate(IWAE(grouped.num_particles), grouped)
