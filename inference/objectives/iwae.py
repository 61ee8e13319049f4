"""The importance-weighted bound, and its kin: particles in groups, or mixed with the ELBO."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dlvm.inference.bounds.bound import Bound, mean_bound, power_bound
from dlvm.inference.bounds.power_means import power_curvatures, power_left_out, power_mean
from dlvm.inference.estimators.estimator import Estimator
from dlvm.inference.objectives.objective import Fixed, Objective
from dlvm.inference.objectives.separate import Separate
from dlvm.nets.arguments import is_count, real


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
        super().__init__(power_bound(1.0), num_particles, estimator)


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

    groups, each = Fixed(), Fixed()

    def __init__(self, groups: int = 8, num_particles: int = 8, estimator: Estimator | None = None):
        if not is_count(groups) or not is_count(num_particles):
            raise ValueError(f"groups and num_particles must be positive integers, got {groups!r}, {num_particles!r}")
        self.groups, self.each = int(groups), int(num_particles)
        mean = _MeanOfGroups(self.groups, self.each)
        bound = Bound(
            mean.value,
            linear=self.each == 1,
            curvature=mean.curvature,
            without=mean.without,
            signal=mean.signal,
        )
        super().__init__(bound, self.groups * self.each, estimator)

    def _settings(self) -> list[str]:
        return [f"groups={self.groups}", f"num_particles={self.each}"]


@dataclass(frozen=True)
class _MeanOfGroups:
    """The bound of ``MIWAE`` and its formulas."""

    groups: int
    each: int

    def value(self, log_w: Tensor) -> Tensor:
        return power_mean(self.grouped(log_w)).mean(0)

    def curvature(self, log_w: Tensor) -> Tensor:
        return self.flat(power_curvatures(self.grouped(log_w)))

    def without(self, log_w: Tensor, others: Tensor) -> Tensor:
        if self.each == 1:
            return power_left_out(log_w, others, 0.0)
        without = power_left_out(self.grouped(log_w), self.grouped(others))
        return self.value(log_w) - self.signal(log_w) + self.flat(without)

    def signal(self, log_w: Tensor) -> Tensor:
        """A particle's own group alone depends on it."""
        grouped = self.grouped(log_w)
        return self.flat(power_mean(grouped).expand_as(grouped))

    def grouped(self, log_w: Tensor) -> Tensor:
        """(M K, batch) -> (K, M, batch)."""
        return log_w.unflatten(0, (self.groups, self.each)).transpose(0, 1)

    def flat(self, values: Tensor) -> Tensor:
        """(K, M, batch) -> (M K, batch), each group's part of the mean."""
        return values.transpose(0, 1).flatten(0, 1) / self.groups


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

    beta = Fixed()

    def __init__(self, beta: float = 0.5, num_particles: int = 5, estimator: Estimator | None = None):
        real(beta=beta)
        if not 0 <= beta <= 1:
            raise ValueError(f"beta must be between 0 and 1, got {beta}; it is the share of the ELBO")
        self.beta = beta
        mix = _Mixture(beta, mean_bound(), power_bound(1.0))
        bound = Bound(mix.value, linear=beta == 1, curvature=mix.curvature, without=mix.without, signal=mix.signal)
        super().__init__(bound, num_particles, estimator)

    def _settings(self) -> list[str]:
        return [f"beta={self.beta}", *super()._settings()]


@dataclass(frozen=True)
class _Mixture:
    """The bound of ``CIWAE`` and its formulas, each by the shares of both bounds."""

    beta: float
    loose: Bound
    tight: Bound

    def value(self, log_w: Tensor) -> Tensor:
        return self.joined(self.loose(log_w), self.tight(log_w))

    def curvature(self, log_w: Tensor) -> Tensor:
        return self.joined(self.loose.curvatures(log_w), self.tight.curvatures(log_w))

    def without(self, log_w: Tensor, others: Tensor) -> Tensor:
        return self.joined(power_left_out(log_w, others, 0.0), power_left_out(log_w, others, 1.0))

    def signal(self, log_w: Tensor) -> Tensor:
        return self.joined(self.loose.signals(log_w), self.tight.signals(log_w))

    def joined(self, loose: Tensor, tight: Tensor) -> Tensor:
        """What has no share counts nothing, even where it is infinite."""
        if self.beta in (0, 1):
            return loose if self.beta else tight
        return self.beta * loose + (1 - self.beta) * tight
