"""The language model as scripts train it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from dlvm.distributions import Sentences
from dlvm.experiments.data import Loader
from dlvm.experiments.options.variables import TokenNetWord, element_of, end_of, frequencies, token_net
from dlvm.experiments.setups.sequences import SequenceSetup
from dlvm.models import LanguageModel


@dataclass(frozen=True)
class LanguageModelSetup(SequenceSetup):
    """Sentences of any length, each token by those before it, up to an end that counts as one; no latents."""

    net: TokenNetWord = "gru"
    """What sees earlier tokens: gru, gated states that see all of them; tcn, dilated convolutions of three positions,
    which reach 2, 6, 14, 30, ... back by their layers."""
    width: int = 128
    """Numbers of a token's vector, and of each state or map."""
    layers: int = 1
    """Of the net."""

    exact: ClassVar[str] = "log p(x), by the chain rule"
    tokens: ClassVar[bool] = True
    command: ClassVar[str] = "--data names --epochs 20"

    def model(self, data: Loader) -> LanguageModel:
        """A fresh p(x)."""
        end, tokens = end_of(data), element_of("bits", data).outputs
        net = token_net(self.net, tokens, self.width, self.layers)
        return LanguageModel(Sentences(net, end=end, start=frequencies(data, tokens)), data.x.shape[1])

    def parts(self, data: Loader) -> Mapping[str, float]:
        """Characters of a sentence on average, the end among them."""
        return {"token": data["lengths"].double().mean().item()}
