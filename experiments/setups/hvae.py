"""The hierarchy of latent vectors as scripts train it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from dlvm.experiments.data import Loader
from dlvm.experiments.options.fitting import check_fits
from dlvm.experiments.options.likelihoods import (
    ByColumn,
    DequantiseOption,
    LikelihoodOption,
    encoder_of,
    likelihood_of,
)
from dlvm.experiments.options.priors import PriorWord, join, prior_of
from dlvm.experiments.options.starts import noise_of
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
    likelihood: LikelihoodOption = "bernoulli"
    by_column: ByColumn = ()
    dequantise: DequantiseOption = "none"
    prior: PriorWord = "standard"
    """p(zL) of the top layer: standard, N(0, I); ard, mixture, vamp, vamp_data, real_nvp, spline, maf and sphere as in
    the vae."""
    components: int | None = None
    """Gaussians of the prior mixture, pseudo-inputs of vamp and vamp_data; None is 100."""

    encoder_layers = "encoder_hidden"

    exact: ClassVar[str] = "KL of every layer given those above, in closed form"
    command: ClassVar[str] = "--data digits --sizes 8 4"

    def model(self, data: Loader) -> HVAE:
        """A fresh p(zL) ... p(z1 | z2) p(x | z1)."""
        model = self._of_standard(data)
        model.prior = prior_of(self.prior, self.sizes[-1], self.components)
        return model

    def _of_standard(self, data: Loader) -> HVAE:
        if self.binary and not data.has_missing and self.dequantise == "none" and not self.by_column:
            check_fits(self.likelihood, data)
            return burda(data.x_dim, self.sizes, self.widths, data.mean)
        width = self.widths[0]
        features = MLP(self.sizes[0], width, width, activation=nn.Tanh, output=nn.Tanh)
        likelihood = likelihood_of(self.likelihood, features, data, self.by_column, self.dequantise)
        return burda(data.x_dim, self.sizes, self.widths, likelihood=likelihood)

    def joined(self, model: nn.Module, guide: nn.Module, data: Loader) -> None:
        """Gives the top layer a prior of the guide's posteriors, where it is to have one."""
        join(model, guide, f"z{len(self.sizes)}", self.prior, self.likelihood, data, self.components)

    @property
    def binary(self) -> bool:
        return self.likelihood == "bernoulli"

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

    def encoder(self, data: Loader) -> nn.Module:
        """From x to the features of a guide."""
        return encoder_of(self.likelihood, data, self._net, self.by_column)

    def cell_noise(self, data: Loader) -> nn.Module | None:
        return noise_of(self.dequantise, data, self._net)

    def _net(self, dim: int) -> MLP:
        return MLP(dim, *self.encoder_hidden, activation=nn.Tanh)
