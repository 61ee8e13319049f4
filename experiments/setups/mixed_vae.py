"""The VAE of bits and real numbers as scripts train it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from dlvm.distributions import Bernoulli
from dlvm.experiments.data import Loader
from dlvm.experiments.options.fitting import check_fits
from dlvm.experiments.setups.setup import Setup, check_whole
from dlvm.models import MixedVAE
from dlvm.nets import MLP


@dataclass(frozen=True)
class MixedVAESetup(Setup):
    """Bits and a real vector for latents, and nets of the same layers from x to them and back; tanh."""

    bits: int = 10
    """Binary latent variables."""
    z_dim: int = 8
    """Real ones."""
    hidden: tuple[int, ...] = (200,)
    """Hidden layers of the encoder, and in reverse of the decoder."""

    binary = True
    encoder_layers = decoder_layers = "hidden"
    defaults: ClassVar = {
        "objective": "iwae",
        "estimator": "vimco",
        "num_particles": 8,
        "score_all": False,
        "objectives": ("elbo:score", "elbo:vimco", "iwae:vimco", "elbo:gumbel", "rws"),
    }
    exact: ClassVar[str] = "the sum over bits, where a few are, of what quadrature or a linear Gaussian gives of z"
    command: ClassVar[str] = "--data digits --bits 10 --z-dim 4"

    def model(self, data: Loader) -> MixedVAE:
        """A fresh p(b) p(z) p(x | b, z)."""
        check_whole(data)
        check_fits("bernoulli", data)
        decoder = MLP(self.bits + self.z_dim, *self.hidden[::-1], data.x_dim, activation=nn.Tanh)
        return MixedVAE(self.bits, self.z_dim, Bernoulli(decoder, data.mean))

    def encoder(self, data: Loader) -> MLP:
        """From x to the features of a guide."""
        return MLP(data.x_dim, *self.hidden, activation=nn.Tanh)
