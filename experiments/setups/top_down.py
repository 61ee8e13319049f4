"""The convolutional hierarchy as scripts train it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from dlvm.experiments.data import Loader
from dlvm.experiments.setups.setup import Setup
from dlvm.models import TopDown
from dlvm.nets import Conv


@dataclass(frozen=True)
class TopDownSetup(Setup):
    """Latent maps of growing resolution for square images whose side is a multiple of 4; ELU."""

    width: int = 24
    """Channels of the states between the maps."""
    channels: tuple[int, ...] = (16, 32)
    """Of the encoder's convolutions, each of which halves the side."""
    features: int = 128
    """Numbers that the encoder gives the guide."""

    binary = True
    nonlinearity = nn.ELU

    exact: ClassVar[str] = "KL of every map given those above, in closed form"
    command: ClassVar[str] = "--data digits"

    def model(self, data: Loader) -> TopDown:
        """A fresh p(zL) ... p(z1 | z2, ..., zL) p(x | z1, ..., zL)."""
        return TopDown(data.x_dim, width=self.width, mean=data.mean)

    def encoder(self, data: Loader) -> Conv:
        """From x to the features of a guide."""
        return Conv(data.x_dim, *self.channels, self.features, activation=nn.ELU)
