"""The VAE with clusters as scripts train it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from dlvm.experiments.data import Loader
from dlvm.experiments.options.likelihoods import LikelihoodWord
from dlvm.experiments.setups.setup import Setup
from dlvm.experiments.setups.vae import VAESetup
from dlvm.models import GMVAE, GaussianMixture


@dataclass(frozen=True)
class GMVAESetup(Setup):
    """A VAE whose prior is a mixture of Gaussians with a cluster for each datum, summed out or drawn by the guide."""

    z_dim: int = 8
    """Latent dimensions."""
    clusters: int = 10
    """Gaussians of the prior, with variances of their own in each dimension."""
    sum_out: bool = True
    """Sum the cluster out, given z: q(y | x, z) is exact; else q(y | x) q(z | x, y), as with --estimator vimco
    --num-particles 8."""
    hidden: tuple[int, ...] = (200, 200)
    """Hidden layers of the encoder, and in reverse of the decoder; tanh."""
    likelihood: LikelihoodWord = "bernoulli"
    """p(x | z), as for vae."""

    exact = "p(y | z), and the sum over y given z"
    command = "--data binarized_mnist --z-dim 10"
    encoder_layers = decoder_layers = "hidden"

    @property
    def binary(self) -> bool:
        return self.likelihood == "bernoulli"

    @property
    def summed_out(self) -> tuple[str, ...]:
        return ("y",) if self.sum_out else ()

    def model(self, data: Loader) -> GMVAE:
        """A fresh p(y) p(z | y) p(x | z)."""
        return GMVAE(GaussianMixture(self.clusters, self.z_dim, "diagonal"), self._vae.decoder(data))

    def encoder(self, data: Loader) -> nn.Module:
        """From x to the features of a guide."""
        return self._vae.encoder(data)

    @property
    def _vae(self) -> VAESetup:
        """That with the same nets."""
        return VAESetup(self.z_dim, self.hidden, likelihood=self.likelihood)
