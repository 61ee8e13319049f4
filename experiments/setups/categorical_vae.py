"""The VAE of categorical latent variables as scripts train it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from dlvm.distributions import Bernoulli
from dlvm.experiments.data import Loader
from dlvm.experiments.options.fitting import check_fits
from dlvm.experiments.setups.setup import Setup, check_whole
from dlvm.models import CategoricalVAE
from dlvm.nets import MLP


@dataclass(frozen=True)
class CategoricalVAESetup(Setup):
    """Variables of several classes for latents, and nets of the same layers from x to them and back; tanh."""

    variables: int = 20
    """Latent variables."""
    classes: int = 10
    """Of each."""
    hidden: tuple[int, ...] = (200,)
    """Hidden layers of the encoder, and in reverse of the decoder."""
    learned_prior: bool = False
    """Whether p(z) is trained; unless asked for, all classes are alike."""

    binary = True
    encoder_layers = decoder_layers = "hidden"
    defaults: ClassVar = {
        "objective": "iwae",
        "estimator": "vimco",
        "num_particles": 8,
        "objectives": ("elbo:score", "iwae:vimco", "elbo:gumbel", "elbo:straight_through", "rws"),
    }
    exact: ClassVar[str] = "log p(x), by enumeration where classes^variables is small"
    command: ClassVar[str] = "--data binarized_mnist --objective elbo --estimator gumbel --num-particles 1"

    def model(self, data: Loader) -> CategoricalVAE:
        """A fresh p(z) p(x | z)."""
        check_whole(data)
        check_fits("bernoulli", data)
        decoder = MLP(self.variables * self.classes, *self.hidden[::-1], data.x_dim, activation=nn.Tanh)
        return CategoricalVAE(self.variables, self.classes, Bernoulli(decoder, data.mean), self.learned_prior)

    def encoder(self, data: Loader) -> MLP:
        """From x to the features of a guide."""
        return MLP(data.x_dim, *self.hidden, activation=nn.Tanh)
