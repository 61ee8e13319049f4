"""The sentence VAE as scripts train it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from dlvm.distributions import Sentences
from dlvm.experiments.data import Loader
from dlvm.experiments.options.variables import TokenNetWord, element_of, end_of, frequencies, token_net
from dlvm.experiments.setups.sequences import SequenceSetup
from dlvm.models import SentenceVAE
from dlvm.nets import GRU, MLP, DeepSet, Embedded


@dataclass(frozen=True)
class SentenceVAESetup(SequenceSetup):
    """One latent vector per sentence, and a decoder that sees earlier tokens beside it."""

    z_dim: int = 16
    """Latent dimensions."""
    net: TokenNetWord = "gru"
    """What sees earlier tokens: gru, gated states that see all of them; tcn, dilated convolutions of three positions,
    which reach 2, 6, 14, 30, ... back by their layers, and leave the rest to z."""
    width: int = 128
    """Numbers of a token's vector, and of each state or map, in encoder and decoder."""
    layers: int = 1
    """Of the decoder's net."""
    read: Literal["gru", "bag"] = "gru"
    """The encoder: gru, which reads in order; bag, a sum over tokens in any order."""
    word_dropout: float = 0.0
    """Share of earlier tokens that the decoder is not shown while it is trained, so that it asks z for them."""

    exact: ClassVar[str] = "the bound's KL, where q is Gaussian; its limit without z, language_model, by the chain rule"
    tokens: ClassVar[bool] = True
    command: ClassVar[str] = "--data names --word-dropout 0.4 --warm-up 10 --epochs 40"

    def model(self, data: Loader) -> SentenceVAE:
        """A fresh p(z) p(x | z)."""
        end, tokens = end_of(data), element_of("bits", data).outputs
        net = token_net(self.net, tokens, self.width, self.layers, self.width)
        decoder = MLP(self.z_dim, self.width)
        likelihood = Sentences(net, decoder, end, self.word_dropout, frequencies(data, tokens))
        return SentenceVAE(self.z_dim, likelihood, steps=data.x.shape[1])

    def encoder(self, data: Loader) -> nn.Module:
        """From tokens to the features of a guide."""
        tokens, width = element_of("bits", data).outputs, self.width
        net = GRU(width, width) if self.read == "gru" else DeepSet(MLP(width, width), MLP(width, width))
        return Embedded(net, tokens)

    def parts(self, data: Loader) -> Mapping[str, float]:
        """Characters of a sentence on average, the end among them."""
        return {"token": data["lengths"].double().mean().item()}
