"""Models whose data are judged by a discriminator: VAE-GAN, and adversarially learned inference."""

from __future__ import annotations

import math

from torch import Tensor, cat, nn

from dlvm.inference.autoencoders.discriminator import Discriminator
from dlvm.inference.autoencoders.draws import Dreams
from dlvm.inference.objectives.aided import Aided, refuse_aided
from dlvm.inference.objectives.elbo import ELBO
from dlvm.inference.objectives.objective import Objective
from dlvm.inference.particles.particles import Particles
from dlvm.nets.arguments import real


def vae_gan(
    objective: Objective,
    discriminator: Discriminator,
    weight: float = 1.0,
    similarity: float = 1.0,
    pixels: float = 1.0,
) -> Aided:
    """Trains the model's dreams to be taken for data, beside the bound.

        pixels E_q log p(x | z) - KL(q(z | x) || p(z)) - similarity / 2 |f(x) - f(x~)|^2 + weight signal(D(x'))
        x~ = E[x | z],  z ~ q(z | x);   x' ~ p(x | z'),  z' ~ p(z);   f the discriminator's last hidden layer

    With ``pixels=0`` it is the VAE/GAN of the reference, whose likelihood is of f alone; then p(x | z) is trained by no
    density of x, and log p(x) of such a model means little. D tells dreams x' from data; a binary dream passes its
    gradient straight through. What is trained is no bound on log p(x); what is reported is the one of this model and
    guide as they are.

    Returns:
        an objective, which owns the discriminator's parameters.

    Args:
        objective: ``ELBO()`` with one draw per datum.
        discriminator: of as many columns as x has numbers, data being real.
        weight: of the signal, counted once for each datum.
        similarity: of the squared distance of hidden features.
        pixels: of log p(x | z).

    Raises:
        TypeError: ``objective`` or ``discriminator`` is something else.
        ValueError: an objective with an aid, or another bound; a weight is negative or not finite; when used, several
            draws per datum, a likelihood whose draws carry no gradient, or one that is made of x.

    References:
        Autoencoding beyond Pixels Using a Learned Similarity Metric, Larsen, Sonderby, Larochelle, Winther, 2016,
            arXiv:1512.09300.

    Example:
        >>> from dlvm.nets import MLP
        >>> vae_gan(ELBO(), Discriminator(MLP(64, 32)), similarity=0.0)
        vae_gan(ELBO(num_particles=1), Discriminator(MLP, signal='non_saturating'), weight=1, similarity=0, pixels=1)
    """
    return Aided(objective, VAEGAN(discriminator, weight, similarity, pixels), side="neither")


class VAEGAN(nn.Module):
    """The aid of ``vae_gan``."""

    name = "vae_gan"

    def __init__(self, discriminator: Discriminator, weight: float, similarity: float, pixels: float):
        super().__init__()
        self.discriminator, self.weights = _discriminator(discriminator), (weight, similarity, pixels)
        for name, number in zip(("weight", "similarity", "pixels"), self.weights, strict=True):
            real(**{name: number})
            if not 0 <= number < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, got {number}; pass 0 to leave it out")

    def __repr__(self) -> str:
        said = "weight={:g}, similarity={:g}, pixels={:g}".format(*self.weights)
        return f"{self.discriminator!r}, {said}"

    def accept(self, objective: Objective) -> None:
        _accept(objective, self.name)

    def forward(self, objective: Objective, particles: Particles, value: Tensor | None) -> Tensor:
        judge, (weight, similarity, pixels) = self.discriminator, self.weights
        dreams = Dreams(particles, self.name)
        x, dreamt = dreams.data
        gained = judge.learned(x, dreamt) + weight * judge.pull(dreamt)
        if similarity:
            away = judge.held_features(x) - judge.held_features(dreams.means)
            gained = gained - 0.5 * similarity * away.square().sum(-1)
        if pixels != 1:
            particles = particles.changed({}, log_likelihood=pixels * particles.log_likelihood)
        return objective.surrogate(particles) + particles.total(gained)


def ali(objective: Objective, discriminator: Discriminator) -> Aided:
    """Adversarially learned inference (BiGAN): nobody is to tell pairs (x, z) of the guide from those of the model.

        max_D min_theta,phi  E_q(z | x) log D(x, z) + E_p(z) p(x | z) log (1 - D(x, z))

    Where D can tell nothing, q(z | x) is the posterior and p(x) that of the data. Nothing of the bound is trained, so
    that codes are those of the data on average alone, and reconstructions may be of another datum. What is reported is
    the bound of this model and guide, far below log p(x) as a rule.

    Returns:
        an objective, which owns the discriminator's parameters.

    Args:
        objective: ``ELBO()`` with one draw per datum, which is reported.
        discriminator: of as many columns as x and z have numbers, x first; pairs of the guide are real.

    Raises:
        TypeError: ``objective`` or ``discriminator`` is something else.
        ValueError: an objective with an aid, or another bound; when used, what ``vae_gan`` raises.

    References:
        Adversarially Learned Inference, Dumoulin et al., 2017, arXiv:1606.00704.
        Adversarial Feature Learning, Donahue, Kraehenbuehl, Darrell, 2017, arXiv:1605.09782.

    Example:
        >>> from dlvm.nets import MLP
        >>> ali(ELBO(), Discriminator(MLP(66, 32)))
        ali(ELBO(num_particles=1), Discriminator(MLP, signal='non_saturating'))
    """
    return Aided(objective, ALI(discriminator), side="neither")


class ALI(nn.Module):
    """The aid of ``ali``."""

    name = "ali"

    def __init__(self, discriminator: Discriminator):
        super().__init__()
        self.discriminator = _discriminator(discriminator)

    def __repr__(self) -> str:
        return repr(self.discriminator)

    def accept(self, objective: Objective) -> None:
        _accept(objective, self.name)

    def forward(self, objective: Objective, particles: Particles, value: Tensor | None) -> Tensor:
        judge, dreams = self.discriminator, Dreams(particles, self.name)
        (z, z_dreamt), (x, x_dreamt) = dreams.codes, dreams.data
        inferred, generated = cat([x, z], -1), cat([x_dreamt, z_dreamt], -1)
        pulls = judge.pull(generated) + judge.pull(inferred, as_real=False)
        return particles.total(judge.learned(inferred, generated) + pulls)


def _discriminator(found: object) -> Discriminator:
    if not isinstance(found, Discriminator):
        raise TypeError(f"discriminator must be a Discriminator(net), got {found!r}; wrap the net in one")
    return found


def _accept(objective: Objective, name: str) -> None:
    refuse_aided(objective, name)
    if not isinstance(objective, ELBO):
        raise ValueError(f"{name} takes ELBO(), got {objective!r}; a guide of points has no bound: take Diagonal")
