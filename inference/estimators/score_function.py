"""Score-function estimators, for sites that cannot be reparametrised."""

from __future__ import annotations

import math

from torch import Tensor, nn

from dlvm.inference.bounds.bound import Bound
from dlvm.inference.estimators.baselines import NVIL, MovingAverage
from dlvm.inference.estimators.estimator import Coefficients, Estimator, differentiated
from dlvm.inference.particles.particles import Particles


class _Score(Estimator):
    """What both have in common: draws that carry a gradient get the total derivative, all others the score."""

    def __init__(self, everywhere: bool = False):
        super().__init__()
        self.detached = everywhere

    def require(self, bound: Bound, particles: Particles) -> None:
        """Every site is fine: what can be reparametrised is, unless asked otherwise."""

    def extra_repr(self) -> str:
        return "everywhere=True" if self.detached else ""

    def jump(self, bound: Bound, particles: Particles) -> tuple[Tensor, Tensor | None]:
        """What log q of each particle's jumps is multiplied by; and what else is to be maximised, 0-d, or None."""
        raise NotImplementedError

    def coefficients(self, bound: Bound, particles: Particles) -> Coefficients:
        slope = bound.slopes(particles.log_w)
        jump, extra = self.jump(bound, particles) if particles.jumps else (None, None)
        if self.detached:
            return Coefficients(slope, None, -slope, jump, extra)
        return Coefficients(slope, slope, None, jump, extra)

    def surrogate(self, bound: Bound, particles: Particles, value: Tensor | None = None) -> Tensor:
        total = differentiated(bound, particles, value)
        if not particles.jumps:
            return total
        jump, extra = self.jump(bound, particles)
        total = total + particles.total((jump * particles.jump_log_q()).sum(0))
        return total if extra is None else total + extra


class ScoreFunction(_Score):
    """The score-function estimator (REINFORCE), with or without a baseline.

        d phi: sum_k (signal_k - baseline) d log q(z_k) / d phi + sum_k c_k d log w_k / d phi

    Unbiased for every bound and every site. The signal is what of the bound depends on particle k. Sites that can be
    reparametrised get the total derivative, all others the score.

    Args:
        baseline: None, ``MovingAverage()`` or ``NVIL(net)``.
        everywhere: whether sites that could be reparametrised get the score too.

    Raises:
        TypeError: ``baseline`` is none of these.

    References:
        Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning, Williams, 1992.
        Black Box Variational Inference, Ranganath, Gerrish, Blei, 2014, arXiv:1401.0118.
    """

    def __init__(self, baseline: nn.Module | None = None, everywhere: bool = False):
        super().__init__(everywhere)
        if not isinstance(baseline, MovingAverage | NVIL | None):
            raise TypeError(f"baseline must be None, MovingAverage() or NVIL(net), got {baseline!r}")
        self.baseline = baseline

    def extra_repr(self) -> str:
        said = [] if self.baseline is None else [f"baseline={self.baseline!r}"]
        return ", ".join([*said, *filter(None, [super().extra_repr()])])

    def jump(self, bound: Bound, particles: Particles) -> tuple[Tensor, Tensor | None]:
        signals = bound.signals(particles.log_w.detach())
        if self.baseline is None:
            return signals, None
        return self.baseline(signals, particles)


class VIMCO(_Score):
    """The score function with the other particles as baseline.

        d phi: sum_k (L - L_{-k}) d log q(z_k) / d phi + sum_k c_k d log w_k / d phi,
        L_{-k} = L with log w_k replaced by mean_{j != k} log w_j

    Unbiased for every bound L of at least two particles: the baseline does not depend on z_k. For IWAE it is VIMCO;
    for the ELBO the leave-one-out baseline. Sites that can be reparametrised get the total derivative.

    Args:
        everywhere: whether sites that could be reparametrised get the score too.

    Raises:
        ValueError: the bound has one particle.

    References:
        Variational Inference for Monte Carlo Objectives, Mnih, Rezende, 2016, arXiv:1602.06725.
    """

    def accept(self, bound: Bound, num_particles: int) -> None:
        if num_particles < 2:
            raise ValueError(
                f"VIMCO needs at least 2 particles, since the others are each one's baseline, got {bound.name} with "
                f"num_particles={num_particles}; pass a larger num_particles, or ScoreFunction(MovingAverage())"
            )

    def jump(self, bound: Bound, particles: Particles) -> tuple[Tensor, Tensor | None]:
        log_w = particles.log_w.detach()
        without = bound.left_out(log_w)
        vanished = without == -math.inf  # as all others' weights are: there is nothing to compare with
        return bound(log_w) - without.masked_fill(vanished, 0.0), None
