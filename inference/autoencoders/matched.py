"""The aggregate posterior, drawn to the prior by a discrepancy or a discriminator: InfoVAE, MMD-VAE, WAE, AAE."""

from __future__ import annotations

import math

from torch import Tensor, nn

from dlvm.inference.autoencoders.discriminator import Discriminator
from dlvm.inference.autoencoders.draws import Dreams
from dlvm.inference.autoencoders.mmd import MMD
from dlvm.inference.autoencoders.reconstruction import Reconstruction
from dlvm.inference.objectives.aided import Aided, refuse_aided
from dlvm.inference.objectives.elbo import ELBO
from dlvm.inference.objectives.objective import Objective
from dlvm.inference.particles.particles import Particles
from dlvm.nets.arguments import real


def matched(objective: Objective, divergence: MMD | Discriminator, weight: float = 10.0, alpha: float = 1.0) -> Aided:
    """Holds the codes of all data together to the prior, in place of those of each datum.

        E_q log p(x | z) - (1 - alpha) KL(q(z | x) || p(z)) - weight D(q(z), p(z)),   q(z) = mean of q(z | x) over data

    With ``alpha=1`` it is the MMD-VAE (``MMD()``), the Wasserstein autoencoder (``MMD(InverseMultiquadric())``, with a
    guide of points and ``Reconstruction()``) and the adversarial autoencoder (a ``Discriminator`` of codes); in between
    the InfoVAE, whose lambda is weight + 1 - alpha; with ``alpha=0, weight=0`` the ELBO. With several latent sites, D
    is between all of them together; draws of the prior are had by running the model.

    What is trained is no bound on log p(x), and what is reported is the objective's own value: of ``ELBO()`` still the
    ELBO of this model and guide, so that ``evaluate`` and all else that gives log p(x) mean what they always do.

    Returns:
        an objective, which owns the discriminator's parameters if it has one.

    Args:
        objective: ``ELBO()``, or ``Reconstruction()``, with one draw per datum.
        divergence: D, estimated from the batch: ``MMD()`` or a ``Discriminator`` of as many columns as latent
            dimensions, the prior's draws being real.
        weight: of D, counted once for each datum.
        alpha: of the mutual information, between 0 and 1; ``Reconstruction()`` has no KL, and takes 1 alone.

    Raises:
        TypeError: ``objective`` or ``divergence`` is something else.
        ValueError: an objective with an aid, ``weight`` is negative or not finite, or ``alpha`` out of range; when
            used, several draws per datum, latent sites that cannot be reparametrised, or a single datum for ``MMD``.

    References:
        InfoVAE: Balancing Learning and Inference in Variational Autoencoders, Zhao, Song, Ermon, 2019,
            arXiv:1706.02262.
        Wasserstein Auto-Encoders, Tolstikhin, Bousquet, Gelly, Schoelkopf, 2018, arXiv:1711.01558.
        Adversarial Autoencoders, Makhzani, Shlens, Jaitly, Goodfellow, Frey, 2015, arXiv:1511.05644.

    Example:
        >>> matched(ELBO(), MMD(), weight=100.0)
        matched(ELBO(num_particles=1), MMD(RBF(width=None)), weight=100)
    """
    return Aided(objective, Matched(divergence, weight, alpha), side="neither")


class Matched(nn.Module):
    """The aid of ``matched``."""

    name = "matched"

    def __init__(self, divergence: MMD | Discriminator, weight: float, alpha: float):
        super().__init__()
        if not isinstance(divergence, MMD | Discriminator):
            raise TypeError(f"divergence must be MMD() or a Discriminator(net), got {divergence!r}")
        real(weight=weight, alpha=alpha)
        if not 0 <= weight < math.inf:
            raise ValueError(f"weight must be at least 0 and finite, got {weight}; it is what the divergence counts")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be between 0 and 1, got {alpha}; 1 leaves out each datum's KL")
        self.divergence, self.weight, self.alpha = divergence, float(weight), float(alpha)

    def __repr__(self) -> str:
        alpha = "" if self.alpha == 1 else f", alpha={self.alpha:g}"
        return f"{self.divergence!r}, weight={self.weight:g}{alpha}"

    def accept(self, objective: Objective) -> None:
        refuse_aided(objective, self.name)
        if not isinstance(objective, ELBO | Reconstruction):
            raise ValueError(f"matched takes ELBO() or Reconstruction(), got {objective!r}; choose one of these")
        if isinstance(objective, Reconstruction) and self.alpha != 1:
            raise ValueError(f"alpha must be 1 with {objective!r}, which has no KL, got {self.alpha}; or take ELBO()")

    def forward(self, objective: Objective, particles: Particles, value: Tensor | None) -> Tensor:
        codes, prior = Dreams(particles, self.name).codes
        gained = particles.total(self.divergence.gain(codes, prior, self.weight))
        if isinstance(objective, Reconstruction):
            return objective.surrogate(particles) + gained
        if self.alpha == 1:
            return particles.total(particles.log_likelihood.mean(0)) + gained
        terms = {name: term._replace(factor=1 - self.alpha) for name, term in particles.terms.items()}
        return objective.surrogate(particles.changed(terms)) + gained
