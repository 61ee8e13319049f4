"""The VAE as scripts train it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from dlvm.distributions import Bernoulli
from dlvm.experiments.data import Loader
from dlvm.experiments.options.common import ACTIVATIONS, ActivationWord
from dlvm.experiments.options.fitting import check_fits
from dlvm.experiments.options.likelihoods import (
    ByColumn,
    DequantiseOption,
    LikelihoodOption,
    encoder_of,
    likelihood_of,
)
from dlvm.experiments.options.nets import NetWord, conv_net, deconv_features, deconv_net
from dlvm.experiments.options.priors import PriorWord, join, prior_of
from dlvm.experiments.options.starts import noise_of
from dlvm.experiments.setups.setup import Setup
from dlvm.models import VAE
from dlvm.nets import MLP


@dataclass(frozen=True)
class VAESetup(Setup):
    """One latent vector, and nets of the same layers from x to z and back."""

    z_dim: int = 2
    """Latent dimensions."""
    hidden: tuple[int, ...] = (200, 200)
    """Hidden layers of the encoder, and in reverse of the decoder."""
    activation: ActivationWord = "tanh"
    """Nonlinearity of encoder, decoder and flow."""
    net: NetWord = "mlp"
    """Of encoder and decoder: mlp; for images of any size conv, convolutions of stride 2, residual or gated with such
    blocks between them. The last of hidden is then the width of the encoder's features, the others count nothing."""
    channels: tuple[int, ...] = (16, 32)
    """Of a net other than mlp: maps after each convolution of the encoder, and in reverse of the decoder."""
    likelihood: LikelihoodOption = "bernoulli"
    prior: PriorWord = "standard"
    """p(z): standard, N(0, I); ard, a Gaussian with a learned scale for each dimension; mixture, of Gaussians; vamp, a
    mixture of posteriors of learned pseudo-inputs; vamp_data, of rows of the data; real_nvp and spline, flows of
    couplings; maf, a masked autoregressive flow; sphere, uniform over directions, for which every guide is von
    Mises-Fisher."""
    components: int | None = None
    """Gaussians of the prior mixture, pseudo-inputs of vamp and vamp_data; None is 100."""
    mean_bias: bool = True
    """Start the Bernoulli decoder's output bias at the data's mean."""
    by_column: ByColumn = ()
    dequantise: DequantiseOption = "none"

    encoder_layers = decoder_layers = "hidden"

    exact: ClassVar[str] = "the bound, where q is Gaussian and the prior too: the KL in closed form"
    command: ClassVar[str] = "--data digits"

    @property
    def binary(self) -> bool:
        return self.likelihood == "bernoulli"

    @property
    def nonlinearity(self) -> Callable:
        return ACTIVATIONS[self.activation]

    def model(self, data: Loader) -> VAE:
        """A fresh p(z) p(x | z)."""
        return VAE(self.z_dim, self.decoder(data), prior_of(self.prior, self.z_dim, self.components))

    def joined(self, model: nn.Module, guide: nn.Module, data: Loader) -> None:
        """Gives the model a prior of the guide's posteriors, where it is to have one."""
        join(model, guide, "z", self.prior, self.likelihood, data, self.components)

    def encoder(self, data: Loader) -> nn.Module:
        """From x to the features of a guide."""
        return encoder_of(self.likelihood, data, lambda dim: self.net_in(dim, data), self.by_column)

    def cell_noise(self, data: Loader) -> nn.Module | None:
        """q(u | x) of the noise within cells."""
        return noise_of(self.dequantise, data, lambda dim: self.net_in(dim, data))

    def net_in(self, dim: int, data: Loader) -> nn.Module:
        """From so many numbers to features."""
        if self.net == "mlp":
            return MLP(dim, *self.hidden, activation=self.nonlinearity)
        if not self.hidden:
            raise ValueError(f"hidden must have a width, that of the encoder's features, for --net {self.net}; add one")
        return conv_net(self.net, (dim, *self.channels, self.hidden[-1]), data, self.nonlinearity)

    def net_out(self, outputs: int | None, data: Loader) -> nn.Module:
        """From z to so many numbers, or to features."""
        layers, act = (self.z_dim, *self.hidden[::-1]), self.nonlinearity
        if self.net != "mlp":
            sizes = (self.z_dim, *self.channels[::-1])
            if outputs is None:
                return deconv_features(self.net, sizes, data, act)
            return deconv_net(self.net, (*sizes, outputs), data, act)
        if outputs is not None:
            return MLP(*layers, outputs, activation=act)
        return MLP(*layers, activation=act, output=act if self.hidden else nn.Identity)

    def decoder(self, data: Loader) -> nn.Module:
        """p(x | z), started from the data."""
        if self.binary and not data.has_missing and self.dequantise == "none" and not self.by_column:
            check_fits(self.likelihood, data)
            return Bernoulli(self.net_out(data.x_dim, data), data.mean if self.mean_bias else None)
        return likelihood_of(self.likelihood, self.net_out(None, data), data, self.by_column, self.dequantise)
