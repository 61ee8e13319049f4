"""The convolutional hierarchy as scripts train it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import nn

from dlvm.distributions import ReshapedPrior
from dlvm.experiments.data import Loader
from dlvm.experiments.options.fitting import check_fits
from dlvm.experiments.options.likelihoods import (
    DequantiseOption,
    LikelihoodOption,
    encoder_of,
    likelihood_of,
)
from dlvm.experiments.options.priors import PriorWord, join, prior_of
from dlvm.experiments.options.starts import noise_of
from dlvm.experiments.setups.setup import Setup
from dlvm.models import TopDown
from dlvm.models.top_down import default_maps
from dlvm.nets import Conv
from dlvm.nets.conv import side_of


@dataclass(frozen=True)
class TopDownSetup(Setup):
    """Latent maps of growing resolution for square images whose side is a multiple of 4; ELU."""

    width: int = 24
    """Channels of the states between the maps."""
    channels: tuple[int, ...] = (16, 32)
    """Of the encoder's convolutions, each of which halves the side."""
    features: int = 128
    """Numbers that the encoder gives the guide."""
    likelihood: LikelihoodOption = "bernoulli"
    dequantise: DequantiseOption = "none"
    prior: PriorWord = "standard"
    """p(zL) of the top map: standard, the model's own, a learned Gaussian; ard, mixture, vamp, vamp_data, real_nvp,
    spline and maf as in the vae."""
    components: int | None = None
    """Gaussians of the prior mixture, pseudo-inputs of vamp and vamp_data; None is 100."""

    nonlinearity = nn.ELU

    exact: ClassVar[str] = "the densities alone; the KL is by draws"
    command: ClassVar[str] = "--data digits"

    def model(self, data: Loader) -> TopDown:
        """A fresh p(zL) ... p(z1 | z2, ..., zL) p(x | z1, ..., zL)."""
        if data.has_missing:
            raise ValueError("likelihood of images knows no missing pixels, got data with holes; take --model vae")
        channels, side = self.maps(data)[-1]
        prior = prior_of(self.prior, channels * side**2, self.components)  # refuses components where there are none
        top = None if self.prior == "standard" else ReshapedPrior(prior, (channels, side, side))
        if self.binary and self.dequantise == "none":
            check_fits(self.likelihood, data)
            return TopDown(data.x_dim, width=self.width, mean=data.mean, prior=top)
        made = partial(likelihood_of, self.likelihood, data=data, dequantise=self.dequantise)
        return TopDown(data.x_dim, width=self.width, likelihood=made, prior=top)

    def maps(self, data: Loader) -> Sequence[tuple[int, int]]:
        """(channels, side) of z1, z2, ..."""
        return default_maps(side_of(data.x_dim, "x_dim"))

    def joined(self, model: nn.Module, guide: nn.Module, data: Loader) -> None:
        """Gives the top map a prior of the guide's posteriors, where it is to have one."""
        join(model, guide, f"z{len(self.maps(data))}", self.prior, self.likelihood, data, self.components)

    @property
    def binary(self) -> bool:
        return self.likelihood == "bernoulli"

    def encoder(self, data: Loader) -> nn.Module:
        """From x to the features of a guide."""
        return encoder_of(self.likelihood, data, self._net)

    def cell_noise(self, data: Loader) -> nn.Module | None:
        return noise_of(self.dequantise, data, self._net)

    def _net(self, dim: int) -> Conv:
        return Conv(dim, *self.channels, self.features, activation=nn.ELU)
