"""Estimators that go through the draws: the total derivative, sticking the landing, doubly reparametrised."""

from __future__ import annotations

import torch
from torch import Tensor

from dlvm.inference.bounds.bound import Bound
from dlvm.inference.estimators.estimator import Coefficients, Estimator, differentiated
from dlvm.inference.particles.particles import Particles


class Total(Estimator):
    """The total derivative of the bound through the weights and the draws, by plain differentiation.

    Unbiased for every bound here wherever all sites can be reparametrised.

    References:
        Auto-Encoding Variational Bayes, Kingma, Welling, 2014, arXiv:1312.6114.
    """

    def coefficients(self, bound: Bound, particles: Particles) -> Coefficients:
        slope = bound.slopes(particles.log_w)
        return Coefficients(slope, slope)

    def surrogate(self, bound: Bound, particles: Particles, value: Tensor | None = None) -> Tensor:
        return differentiated(bound, particles, value)


class STL(Estimator):
    """The path derivative: "sticking the landing".

        d phi: sum_k c_k (d log w_k / d z_k) (d z_k / d phi),   c_k = d bound / d log w_k

    The score of q is left out. That is unbiased for bounds that are linear in log w (the ELBO), with zero variance
    where q is the posterior; for others (IWAE with K > 1) it is biased. The guide's density is taken a second time at
    fixed draws: for a guide of several sites by running it again, so that it must not draw other noise (dropout).

    References:
        Sticking the Landing, Roeder, Wu, Duvenaud, 2017, arXiv:1703.09194.
    """

    def coefficients(self, bound: Bound, particles: Particles) -> Coefficients:
        slope = bound.slopes(particles.log_w)
        return Coefficients(slope, slope, slope)


class DReG(Estimator):
    """The doubly reparametrised gradient.

        d phi: sum_k (c_k - h_k) (d log w_k / d z_k) (d z_k / d phi),
        c_k = d bound / d log w_k,   h_k = d^2 bound / d (log w_k)^2

    The score of q is reparametrised once more, which is unbiased for every smooth bound: the factor is w~_k^2 for
    IWAE, alpha w~_k + (1 - alpha) w~_k^2 for the Renyi bound (with its own normalised weights), and 1 / K for the
    ELBO, where it is STL. Parameters of the model get sum_k c_k d log p(x, z_k). For the second look at q see STL.

    Raises:
        ValueError: the bound's slopes jump (VRMax); or, when used, a latent site is tempered under a bound that is
            not linear in log w.

    References:
        Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives, Tucker, Lawson, Gu, Maddison, 2019,
        arXiv:1810.04152.
        Generalized Doubly Reparameterized Gradient Estimators, Bauer, Mnih, 2021, arXiv:2101.11046.
    """

    def accept(self, bound: Bound, num_particles: int) -> None:
        if not bound.smooth:
            raise ValueError(f"DReG needs a bound with continuous slopes, which {bound.name} has not; use Total()")

    def require(self, bound: Bound, particles: Particles) -> None:
        super().require(bound, particles)
        if particles.tempered and not bound.linear:
            raise ValueError(
                f"DReG is not defined for {bound.name} with tempered latent sites, whose weights no "
                "longer belong to the density that is drawn from; use Total()"
            )

    def coefficients(self, bound: Bound, particles: Particles) -> Coefficients:
        log_w = particles.log_w
        slope = bound.slopes(log_w)
        path = slope if bound.linear else slope - bound.curvatures(log_w.detach())
        return Coefficients(slope, path, path)


def check_rescored(particles: Particles) -> None:
    """Raises ValueError where the guide's density at its draws is not the one that they were drawn with."""
    first, second = particles.log_q.detach(), particles.log_q_at_fixed_values().detach()
    if torch.allclose(first, second, rtol=0.01, atol=0.01):
        return
    wrong = "so that STL and DReG, or RWS with doubly=True, would be wrong"
    if torch.equal(second, particles.log_q_at_fixed_values().detach()):  # no noise
        raise ValueError(
            f"the guide's density at its own draws is off by up to {(first - second).abs().max():.2g} nats when it is "
            f"found from their values, {wrong}: rounding takes too much; standardise the data, compute in float64, "
            "or use estimator=Total(), or doubly=False"
        )
    raise ValueError(
        f"the guide gives its own draws another density when it is run again, {wrong}; leave out its dropout, or use "
        "estimator=Total(), or doubly=False"
    )
