"""The VQ-VAE as scripts train it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from dlvm.distributions import Bernoulli, ChainRule, Codebook, CodePrior, Tokens
from dlvm.distributions.priors.codebook import IndependentCodes
from dlvm.experiments.data import Loader
from dlvm.experiments.options.fitting import check_fits
from dlvm.experiments.setups.setup import Setup, check_whole
from dlvm.guides import Quantiser
from dlvm.models import VQVAE
from dlvm.nets import MLP, CausalTransformer

STARTED_ON = 1000  # rows of the data, of whose features a codebook is made


@dataclass(frozen=True)
class VQVAESetup(Setup):
    """Codes of a learned list for latents, chosen without doubt and learned straight through that choice; ReLU."""

    positions: int = 16
    """Codes of a datum."""
    codes: int = 64
    """How many different ones there are."""
    code_dim: int = 8
    """Numbers that each code stands for."""
    hidden: tuple[int, ...] = (200,)
    """Hidden layers of the encoder, and in reverse of the decoder."""
    prior: Literal["transformer", "independent", "uniform"] = "transformer"
    """p(k) of the codes, learned beside the nets, on which it has no influence: each given those before it, each by
    itself, or, not learned, all equally likely."""
    layers: int = 2
    """Of the transformer, four heads of 16 numbers each."""
    commitment: float = 0.25
    """How much the encoder is held to the codes."""

    binary = True
    nonlinearity = nn.ReLU
    encoder_layers = decoder_layers = "hidden"
    defaults: ClassVar = {"guide": "own", "warm_up": 0, "eval_particles": 2}
    reported: ClassVar[str] = "bound on log p(x)"
    exact: ClassVar[str] = "the bound, without draws, since the guide is a point mass on codes; its gradient is biased"
    command: ClassVar[str] = "--data binarized_mnist --epochs 30"

    def model(self, data: Loader) -> VQVAE:
        """A fresh p(k) p(x | z), z the vectors of k."""
        check_whole(data)
        check_fits("bernoulli", data)
        width = self.positions * self.code_dim
        decoder = MLP(width, *self.hidden[::-1], data.x_dim, activation=self.nonlinearity)
        prior = CodePrior(Codebook(self.codes, self.code_dim), self.positions, self._prior())
        return VQVAE(prior, Bernoulli(decoder, data.mean))

    def _prior(self) -> nn.Module:
        if self.prior != "transformer":
            return IndependentCodes(self.positions, self.codes, learned=self.prior == "independent")
        net = CausalTransformer(self.positions, self.codes, self.codes, width=64, layers=self.layers, heads=4)
        return ChainRule(net, Tokens(self.codes))

    def encoder(self, data: Loader) -> MLP:
        """From x to as many vectors as there are positions."""
        return MLP(data.x_dim, *self.hidden, self.positions * self.code_dim, activation=self.nonlinearity)

    def guide(self, model: nn.Module, data: Loader) -> Quantiser:
        """The nearest codes, of which there are as many vectors of the encoder at the start."""
        codebook, encoder = book_of(model), self.encoder(data).to(data.device)
        with torch.no_grad():
            found = encoder(data.first(STARTED_ON)).reshape(-1, self.code_dim)
            picked = found[torch.randperm(len(found), device="cpu")[torch.arange(self.codes) % len(found)]]
            codebook.vectors.copy_(picked)
        return Quantiser(codebook, encoder, self.commitment)

    @torch.no_grad()
    def measures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Mapping[str, float]:
        """How many codes are in use, as the perplexity of how often each is, and what p(k) gains on equal chances."""
        if not isinstance(guide, Quantiser) or not isinstance(model, VQVAE):
            return {}
        codes = torch.cat([guide.codes(*batch) for batch in data])
        share = torch.bincount(codes.flatten(), minlength=self.codes).double() / codes.numel()
        log_p = model.prior.codes().log_prob(codes).double().mean().item()
        return {
            "codes in use": torch.special.entr(share).sum().exp().item(),
            "gain of p(k), nats": log_p + self.positions * math.log(self.codes),
        }


def book_of(model: nn.Module) -> Codebook:
    """What a guide of a VQ-VAE shares with it."""
    if not isinstance(model, VQVAE):
        raise TypeError(f"model must be a VQVAE, got {type(model).__name__}")
    return model.prior.codebook
