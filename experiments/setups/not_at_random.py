"""Data with holes that are not there by chance, as scripts train them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import nn

from dlvm.distributions import Bernoulli, SelfMasking
from dlvm.experiments.data import Loader
from dlvm.experiments.options.common import ACTIVATIONS
from dlvm.experiments.options.likelihoods import encoder_of, likelihood_of
from dlvm.experiments.options.starts import units_of
from dlvm.experiments.setups.setup import Setup
from dlvm.guides import FromModel, latents
from dlvm.models import NotAtRandom
from dlvm.nets import MLP, Standardised

if TYPE_CHECKING:
    from dlvm.experiments.setups.pictures import Drawing


@dataclass(frozen=True)
class NotAtRandomSetup(Setup):
    """A VAE of real numbers with holes, and what hides them; encoder and decoder of the same layers."""

    z_dim: int = 2
    """Latent dimensions."""
    hidden: tuple[int, ...] = (100, 100)
    """Hidden layers of the encoder, in reverse of the decoder, and of the mechanism any."""
    activation: Literal["relu", "tanh", "elu", "softplus"] = "tanh"
    """Nonlinearity of all nets."""
    likelihood: Literal["normal", "normal_learned", "normal_fixed", "laplace", "student_t"] = "normal"
    """p(x | z): normal (with a scale for each datum and column, one learned for each column, or that of the column),
    laplace or student_t."""
    mechanism: Literal["self_masking", "any"] = "self_masking"
    """p(mask | x): self_masking, a logistic of each number by itself, or any, a net of all numbers of a datum."""

    encoder_layers = decoder_layers = "hidden"
    defaults: ClassVar = {"guide": "own", "objective": "iwae"}
    exact: ClassVar[str] = "the weight of what is missing, which both programs draw alike"
    command: ClassVar[str] = "--data air_quality"

    @property
    def nonlinearity(self) -> Callable:
        return ACTIVATIONS[self.activation]

    def model(self, data: Loader) -> NotAtRandom:
        """A fresh p(z) p(x | z) p(mask | x), whose mechanism starts at the rates of each column."""
        act = self.nonlinearity
        net = MLP(self.z_dim, *self.hidden[::-1], activation=act, output=act if self.hidden else nn.Identity)
        likelihood = likelihood_of(self.likelihood, net, data)
        rates = (~data.x.isnan()).to(torch.get_default_dtype()).mean(0)
        units = units_of(data.x)
        if self.mechanism == "self_masking":
            return NotAtRandom(self.z_dim, likelihood, SelfMasking(data.x_dim, rates, units))
        logits = MLP(data.x_dim, *self.hidden, data.x_dim, activation=act)
        with torch.no_grad():
            logits.bias.copy_(torch.logit(rates, eps=1e-3))
        return NotAtRandom(self.z_dim, likelihood, Bernoulli(Standardised(logits, units.loc, units.scale)))

    def guide(self, model: nn.Module, data: Loader) -> FromModel:
        """q(z | x) p(x_unobserved | z)."""
        encoder = self.encoder(data).to(data.device)
        return FromModel(latents(model, *data.examples), encoder, model, left=("x_unobserved",))

    def pictures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Iterator[Drawing]:
        """Those of any model but draws of x, which have holes."""
        yield from (drawing for drawing in super().pictures(model, guide, data) if drawing[0] != "samples")

    def encoder(self, data: Loader) -> nn.Module:
        """From x to the features of a guide."""
        return encoder_of(self.likelihood, data, lambda dim: MLP(dim, *self.hidden, activation=self.nonlinearity))
