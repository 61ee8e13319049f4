"""The VAE with random weights in its decoder, as scripts train it: full variational Bayes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro
from torch import nn

from dlvm.distributions import StandardNormal
from dlvm.experiments.data import Loader
from dlvm.experiments.options.common import ACTIVATIONS, ActivationWord
from dlvm.experiments.options.likelihoods import LikelihoodOption
from dlvm.experiments.options.weights import WEIGHTS_HELP, RandomWeights, WeightsWord, bayesian
from dlvm.experiments.setups.setup import Setup
from dlvm.experiments.setups.vae import VAESetup
from dlvm.models import VAE, Bayesian


@dataclass(frozen=True)
class BayesianVAESetup(RandomWeights, Setup):
    """A VAE whose decoder's weights are random, with a posterior q(w); the encoder's are parameters."""

    z_dim: int = 2
    """Latent dimensions."""
    hidden: tuple[int, ...] = (200, 200)
    """Hidden layers of the encoder, and in reverse of the decoder."""
    activation: ActivationWord = "tanh"
    """Nonlinearity of encoder, decoder and flow."""
    likelihood: LikelihoodOption = "bernoulli"
    weights: Annotated[WeightsWord, tyro.conf.arg(help=WEIGHTS_HELP)] = "normal"
    prior_scale: float = 1.0
    """Standard deviation of a weight under its prior, times the root of how many its unit has."""
    last_layer: bool = False
    """Random weights in the decoder's last layer alone."""

    encoder_layers = decoder_layers = "hidden"
    reported: ClassVar[str] = "log p(x | D)"
    exact: ClassVar[str] = "the bound on log p(D), over the batches of an epoch, for draws of weights and latents"
    command: ClassVar[str] = "--data digits --z-dim 8 --epochs 400"

    @property
    def binary(self) -> bool:
        return self.likelihood == "bernoulli"

    @property
    def nonlinearity(self) -> Callable:
        return ACTIVATIONS[self.activation]

    def model(self, data: Loader) -> Bayesian:
        """A fresh p(w) p(z) p(x | z, w)."""
        decoder = self._vae.decoder(data)
        return bayesian(VAE(self.z_dim, decoder, StandardNormal(self.z_dim)), data, self.prior_scale, self.last_layer)

    def encoder(self, data: Loader) -> nn.Module:
        """From x to the features of a guide."""
        return self._vae.encoder(data)

    @property
    def _vae(self) -> VAESetup:
        """That with the same nets."""
        return VAESetup(self.z_dim, self.hidden, self.activation, likelihood=self.likelihood)
