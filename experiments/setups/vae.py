"""The VAE as scripts train it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from dlvm.distributions import Bernoulli, DiagonalNormal
from dlvm.experiments.data import Loader
from dlvm.experiments.options.common import ACTIVATIONS
from dlvm.models import VAE
from dlvm.nets import MLP


@dataclass(frozen=True)
class VAESetup:
    """One latent vector, and nets of the same layers from x to z and back."""

    z_dim: int = 2
    """Latent dimensions."""
    hidden: tuple[int, ...] = (200, 200)
    """Hidden layers of the encoder, and in reverse of the decoder."""
    activation: Literal["relu", "tanh", "elu", "softplus"] = "tanh"
    """Nonlinearity of encoder, decoder and flow."""
    likelihood: Literal["bernoulli", "normal"] = "bernoulli"
    """p(x | z): bernoulli for binary data, normal for real numbers."""
    mean_bias: bool = True
    """Start the Bernoulli decoder's output bias at the data's mean."""

    @property
    def binary(self) -> bool:
        return self.likelihood == "bernoulli"

    @property
    def nonlinearity(self) -> Callable:
        return ACTIVATIONS[self.activation]

    def model(self, data: Loader) -> VAE:
        """A fresh p(z) p(x | z)."""
        return VAE(self.z_dim, self.decoder(data))

    def encoder(self, data: Loader) -> MLP:
        """From x to the features of a guide."""
        return MLP(data.x_dim, *self.hidden, activation=self.nonlinearity)

    def decoder(self, data: Loader) -> nn.Module:
        """p(x | z); for real numbers with a variance of its own for every z."""
        layers, act = (self.z_dim, *self.hidden[::-1]), self.nonlinearity
        if self.binary:
            return Bernoulli(MLP(*layers, data.x_dim, activation=act), data.mean if self.mean_bias else None)
        return DiagonalNormal(MLP(*layers, activation=act, output=act if self.hidden else nn.Identity), data.x_dim)
