"""The hierarchy of latent vectors as scripts train it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from dlvm.experiments.data import Loader
from dlvm.models import HVAE, burda
from dlvm.nets import MLP


@dataclass(frozen=True)
class HVAESetup:
    """Latent vectors z1 to zL, two hidden layers between each and the next, and one encoder from x; tanh."""

    sizes: tuple[int, ...] = (32, 16)
    """Dimensions of z1, z2, ..."""
    hidden: tuple[int, ...] = (100, 64)
    """Width of the two hidden layers below z1, z2, ..."""
    encoder_hidden: tuple[int, ...] = (100, 100)
    """Hidden layers of the encoder."""

    binary = True
    nonlinearity = nn.Tanh

    def model(self, data: Loader) -> HVAE:
        """A fresh p(zL) ... p(z1 | z2) p(x | z1)."""
        return burda(data.x_dim, self.sizes, self.hidden, data.mean)

    def encoder(self, data: Loader) -> MLP:
        """From x to the features of a guide."""
        return MLP(data.x_dim, *self.encoder_hidden, activation=nn.Tanh)
