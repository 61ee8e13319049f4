"""The causal Transformer as scripts train it, over pixels or over tokens."""

from __future__ import annotations

from dataclasses import dataclass

from dlvm.distributions import Bits, ChainRule, Greys, MixedGreys
from dlvm.experiments.data import Loader
from dlvm.experiments.options.variables import VariableWord, dim_of, element_of, start_of
from dlvm.experiments.setups.setup import Setup
from dlvm.models import FullyVisible
from dlvm.nets import CausalTransformer


@dataclass(frozen=True)
class TransformerSetup(Setup):
    """Each variable by attention over those before it; bits, grey levels, classes, and sequences of tokens.

    References:
        Attention Is All You Need, Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin, 2017,
        arXiv:1706.03762.
    """

    layers: int = 2
    """Layers of attention."""
    heads: int = 4
    """Of attention in each layer."""
    head_width: int = 16
    """Numbers of each head; at each position there are heads times so many."""
    variables: VariableWord = "bits"
    """What x is made of: bits, greys (a probability for each level) or a mixture of rounded logistics over
    these; of sequences and classes, tokens."""

    exact = "log p(x), by the chain rule"
    command = "--data names --heads 4 --head-width 16 --epochs 20"

    @property
    def binary(self) -> bool:
        return self.variables == "bits"

    def model(self, data: Loader) -> FullyVisible:
        """A fresh p(x)."""
        element = element_of(self.variables, data)
        tokens = 2 if isinstance(element, Bits) else element.levels
        step = 1 / (tokens - 1) if isinstance(element, Greys | MixedGreys) else 1.0
        sizes = {"width": self.heads * self.head_width, "layers": self.layers, "heads": self.heads}
        net = CausalTransformer(dim_of(data), tokens, element.outputs, **sizes, step=step)
        return FullyVisible(ChainRule(net, element, start=start_of(element, data)))
