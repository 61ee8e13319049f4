"""The gated PixelCNN as scripts train it."""

from __future__ import annotations

from dataclasses import dataclass

from dlvm.distributions import ChainRule
from dlvm.experiments.data import Loader
from dlvm.experiments.options.variables import VariableWord, element_of, picture_shape, start_of
from dlvm.experiments.setups.setup import Setup
from dlvm.models import FullyVisible
from dlvm.nets import PixelCNN


@dataclass(frozen=True)
class PixelCNNSetup(Setup):
    """Each pixel by gated convolutions over those before it, colour after colour; images of any size.

    References:
        Conditional Image Generation with PixelCNN Decoders, van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves,
        Kavukcuoglu, 2016, arXiv:1606.05328.
    """

    receptive_field: int = 7
    """How many rows up, and columns to either side, a pixel sees."""
    layers: int = 5
    """Gated layers, which share the receptive field among them."""
    channels: int = 32
    """Maps in each of the two stacks."""
    variables: VariableWord = "bits"
    """What x is made of: bits, greys (a probability for each level) or a mixture of rounded logistics over these."""

    exact = "log p(x), by the chain rule"
    command = "--data digits --receptive-field 4 --layers 3 --epochs 40"

    @property
    def binary(self) -> bool:
        return self.variables == "bits"

    def model(self, data: Loader) -> FullyVisible:
        """A fresh p(x)."""
        element = element_of(self.variables, data)
        sizes = {"channels": self.channels, "layers": self.layers, "receptive_field": self.receptive_field}
        net = PixelCNN(picture_shape(data), element.outputs, **sizes)
        return FullyVisible(ChainRule(net, element, start=start_of(element, data)))
