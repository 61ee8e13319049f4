"""The VAE of binary latent variables as scripts train it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from dlvm.distributions import Bernoulli, BernoulliPrior
from dlvm.experiments.data import Loader
from dlvm.experiments.options.fitting import check_fits
from dlvm.experiments.setups.setup import Setup
from dlvm.models import VAE
from dlvm.nets import MLP


@dataclass(frozen=True)
class DiscreteVAESetup(Setup):
    """Fair bits for a latent vector, and nets of the same layers from x to them and back; tanh."""

    bits: int = 16
    """Binary latent variables."""
    hidden: tuple[int, ...] = (100,)
    """Hidden layers of the encoder, and in reverse of the decoder."""

    binary = True
    encoder_layers = decoder_layers = "hidden"
    defaults = {
        "objective": "iwae",
        "estimator": "vimco",
        "num_particles": 8,
        "objectives": ("elbo:score", "elbo:vimco", "iwae:score", "iwae:vimco", "wake_sleep", "rws"),
    }

    exact: ClassVar[str] = "log p(x), by enumeration of up to 2^16 values"
    command: ClassVar[str] = "--data digits"

    def model(self, data: Loader) -> VAE:
        """A fresh p(z) p(x | z)."""
        check_fits("bernoulli", data)
        decoder = MLP(self.bits, *self.hidden[::-1], data.x_dim, activation=nn.Tanh)
        return VAE(self.bits, Bernoulli(decoder, data.mean), BernoulliPrior(self.bits))

    def encoder(self, data: Loader) -> MLP:
        """From x to the features of a guide."""
        return MLP(data.x_dim, *self.hidden, activation=nn.Tanh)
