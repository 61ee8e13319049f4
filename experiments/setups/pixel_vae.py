"""The PixelVAE as scripts train it: a latent vector, and a likelihood in which pixels see one another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from dlvm.distributions import ChainRule
from dlvm.experiments.data import Loader
from dlvm.experiments.options.variables import VariableWord, element_of, picture_shape, start_of
from dlvm.experiments.setups.setup import Setup
from dlvm.models import VAE
from dlvm.nets import MLP, PixelCNN

if TYPE_CHECKING:
    from dlvm.experiments.setups.pictures import Drawing


@dataclass(frozen=True)
class PixelVAESetup(Setup):
    """p(x_d | x_<d, z) by gated convolutions: the farther a pixel sees, the less is left for z to say; ELU.

    References:
        PixelVAE: A Latent Variable Model for Natural Images, Gulrajani, Kumar, Ahmed, Taiga, Visin, Vazquez, Courville,
        2016, arXiv:1611.05013.
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 2.8.1, arXiv:1906.02691.
    """

    z_dim: int = 8
    """Latent dimensions."""
    hidden: tuple[int, ...] = (200, 200)
    """Hidden layers of the encoder, and in reverse of the decoder."""
    receptive_field: int = 2
    """How many rows up, and columns to either side, a pixel sees; 0 for none, as in a plain VAE."""
    layers: int = 2
    """Gated layers, which share the receptive field among them."""
    channels: int = 16
    """Maps in each of the two stacks."""
    variables: VariableWord = "bits"
    """What x is made of: bits, greys (a probability for each level) or a mixture of rounded logistics over these."""

    exact = "log p(x | z), by the chain rule"
    command = "--data digits --receptive-field 1 --epochs 40"
    encoder_layers = decoder_layers = "hidden"
    nonlinearity = nn.ELU

    @property
    def binary(self) -> bool:
        return self.variables == "bits"

    def model(self, data: Loader) -> VAE:
        """A fresh p(z) p(x | z)."""
        element = element_of(self.variables, data)
        decoder = MLP(self.z_dim, *self.hidden[::-1], activation=nn.ELU, output=nn.ELU if self.hidden else nn.Identity)
        sizes = {"channels": self.channels, "layers": self.layers, "receptive_field": self.receptive_field}
        net = PixelCNN(picture_shape(data), element.outputs, **sizes, context=decoder.out_features)
        return VAE(self.z_dim, ChainRule(net, element, decoder, start_of(element, data)))

    def encoder(self, data: Loader) -> MLP:
        """From x to the features of a guide."""
        return MLP(data.x_dim, *self.hidden, activation=nn.ELU)

    def pictures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Iterator[Drawing]:
        """Draws: means of p(x | z) are not known where pixels depend on one another."""
        from dlvm.experiments.setups.pictures import drawn_beside

        yield from drawn_beside(model, data)
