"""What is left of the ELBO without its rate: the objective of a plain autoencoder."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor

from dlvm.inference.bounds.bound import mean_bound
from dlvm.inference.objectives.objective import Objective
from dlvm.inference.particles.particles import Particles
from dlvm.nets.arguments import real


class Reconstruction(Objective):
    """The log-likelihood of data given their own codes; with a guide of point masses, a plain autoencoder.

        E_q(z | x) log p(x | z) + code E_q(z | x) log p(z)

    It is the limit of the beta-VAE's objective for beta -> 0, in which q(z | x) may shrink to a point, as
    ``guides.Point`` is from the start. It is no bound on log p(x): what is reported is E_q log p(x | z), minus the
    distortion, and higher means nothing about the data that the model would generate. With ``code`` above 0 and a
    standard normal prior, codes are kept small by code |z|^2 / 2, as a regularised autoencoder (RAE) does.

    log p(x) of the model is had where a guide with a density is fitted to it afterwards, by ``ELBO()`` with the
    model's parameters held, and evaluated.

    Args:
        num_particles: K, draws of z per datum; a point needs no more than 1.
        code: weight of log p(z) while training; what is reported leaves it out.

    Raises:
        ValueError: ``num_particles`` is no positive integer, ``code`` is negative or not finite; when used, a latent
            site cannot be reparametrised.
        TypeError: ``code`` is no number.

    References:
        From Variational to Deterministic Autoencoders, Ghosh, Sajjadi, Vergari, Black, Schoelkopf, 2020,
            arXiv:1903.12436.
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 2.2, arXiv:1906.02691.

    Example:
        >>> Reconstruction(code=0.01)
        Reconstruction(num_particles=1, code=0.01)
    """

    def __init__(self, num_particles: int = 1, code: float = 0.0):
        real(code=code)
        if not 0 <= code < math.inf:
            raise ValueError(f"code must be at least 0 and finite, the weight of log p(z), got {code}; pass 0 for none")
        super().__init__(replace(mean_bound(), side="neither", linear=False), num_particles)
        self.code = float(code)

    def _settings(self) -> list[str]:
        return [*super()._settings(), *([f"code={self.code:g}"] if self.code else [])]

    def require(self, particles: Particles) -> None:
        self.estimator.require(self.bound, particles)

    def value(self, particles: Particles) -> Tensor:
        return particles.log_likelihood.mean(0)

    def surrogate(self, particles: Particles, value: Tensor | None = None) -> Tensor:
        log_p = particles.log_likelihood.mean(0)
        if self.code:
            log_p = log_p + self.code * particles.log_prior.mean(0)
        return particles.total(log_p)
