"""Probabilistic principal components as scripts train them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from dlvm.experiments.data import Loader
from dlvm.experiments.setups.setup import Setup, check_whole
from dlvm.models import PPCA
from dlvm.nets import MLP


@dataclass(frozen=True)
class PPCASetup(Setup):
    """A linear decoder of real numbers, from a random start, and an encoder with hidden layers of tanh.

    Where ``PPCA.maximum_likelihood`` leads in closed form, which tells how far training came.
    """

    z_dim: int = 2
    """Latent dimensions."""
    hidden: tuple[int, ...] = (100, 100)
    """Hidden layers of the encoder."""

    encoder_layers = "hidden"

    exact: ClassVar[str] = "log p(x), the posterior, and the best parameters"
    command: ClassVar[str] = "--data digits --binarize none"

    def model(self, data: Loader) -> PPCA:
        """A fresh p(z) p(x | z) about the data's mean, with noise of scale 1."""
        check_whole(data)
        return PPCA(torch.randn(data.x_dim, self.z_dim, device=data.device) / self.z_dim**0.5, data.mean, 1.0)

    def optimum(self, data: Loader) -> PPCA:
        """The maximum of the likelihood, which is known in closed form."""
        return PPCA.maximum_likelihood(data.x, self.z_dim)

    def encoder(self, data: Loader) -> MLP:
        """From x to the features of a guide."""
        return MLP(data.x_dim, *self.hidden, activation=self.nonlinearity)
