"""The hierarchy of latent vectors as scripts train it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from dlvm.experiments.data import Loader
from dlvm.experiments.setups.setup import Setup
from dlvm.models import HVAE, burda
from dlvm.nets import MLP


@dataclass(frozen=True)
class HVAESetup(Setup):
    """Latent vectors z1 to zL, two hidden layers between each and the next, and one encoder from x; tanh."""

    sizes: tuple[int, ...] = (32, 16)
    """Dimensions of z1, z2, ..."""
    hidden: tuple[int, ...] = (100, 64)
    """Width of the two hidden layers below z1, z2, ...; the last holds for all layers above."""
    encoder_hidden: tuple[int, ...] = (100, 100)
    """Hidden layers of the encoder."""

    binary = True
    encoder_layers = "encoder_hidden"

    exact: ClassVar[str] = "KL of every layer given those above, in closed form"
    command: ClassVar[str] = "--data digits --sizes 8 4"

    def model(self, data: Loader) -> HVAE:
        """A fresh p(zL) ... p(z1 | z2) p(x | z1)."""
        return burda(data.x_dim, self.sizes, self.widths, data.mean)

    @property
    def widths(self) -> tuple[int, ...]:
        """As many of ``hidden`` as there are layers."""
        missing = len(self.sizes) - len(self.hidden)
        if missing < 0 and self.hidden != HVAESetup.hidden:
            raise ValueError(
                f"hidden must have no more widths than there are layers, got {len(self.hidden)} for "
                f"{len(self.sizes)} sizes; leave some out of --hidden"
            )
        return (*self.hidden, *self.hidden[-1:] * missing)[: len(self.sizes)]

    def encoder(self, data: Loader) -> MLP:
        """From x to the features of a guide."""
        return MLP(data.x_dim, *self.encoder_hidden, activation=nn.Tanh)
