"""The very deep hierarchy as scripts train it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from dlvm.experiments.data import Loader
from dlvm.experiments.options.likelihoods import likelihood_of
from dlvm.experiments.setups.setup import Setup
from dlvm.guides import TopDownPosterior, latents
from dlvm.models import VDVAE
from dlvm.nets import Conv, PixelMaps, Pyramid
from dlvm.nets.arguments import count

TOP = 1 / 5  # share of the groups that see the whole image at once


@dataclass(frozen=True)
class VDVAESetup(Setup):
    """Many groups of latent maps on one top-down path, for square images of one channel or three; GELU.

    A fifth of the groups are at the top, of one pixel; the others at a quarter and half of the image's side, two at a
    quarter for one at half of it.
    """

    layers: int = 10
    """Of latent maps, in all."""
    channels: int = 4
    """Of each latent map."""
    width: int = 32
    """Channels of the states, and of the encoder's maps."""
    depth: int = 2
    """Residual blocks of the encoder at each side."""
    likelihood: Literal["bernoulli", "discretised_logistic", "logistic_mixture", "grey_levels"] = "bernoulli"
    """p(x | z): bernoulli for 0 and 1, the others for grey levels and colours."""

    nonlinearity = nn.GELU
    defaults: ClassVar = {"guide": "own"}
    exact: ClassVar[str] = "KL of every group given those above, in closed form"
    command: ClassVar[str] = "--data binarized_mnist --objective analytic_kl --skip-norm 1e4"

    @property
    def binary(self) -> bool:
        return self.likelihood == "bernoulli"

    def model(self, data: Loader) -> VDVAE:
        """A fresh p(zL) ... p(z1 | z2, ..., zL) p(x | z1, ..., zL)."""
        _, side = image_of(data)
        likelihood = likelihood_of(self.likelihood, PixelMaps(self.width, side, factor=2), data)
        return VDVAE(likelihood, spread(self.layers, side), self.channels, self.width)

    def guide(self, model: nn.Module, data: Loader) -> TopDownPosterior:
        """q(zl | x, z(l+1), ..., zL) along the model's own path."""
        channels, side = image_of(data)
        sides = [each for each, _ in spread(self.layers, side)[::-1]]
        encoder = Pyramid(data.x_dim, sides, self.width, self.depth, channels=channels).to(data.device)
        return TopDownPosterior(latents(model, *data.examples), encoder, model)

    def encoder(self, data: Loader) -> Conv:
        """From x to the features of a family of guides, which ``--guide own`` does without."""
        channels, side = image_of(data)
        maps = (self.width,) * self.depth
        return Conv(data.x_dim, *maps, 4 * self.width, activation=nn.GELU, shape=(channels, side, side))


def image_of(data: Loader) -> tuple[int, int]:
    """Channels and side of square images.

    Raises:
        ValueError: the data are no square images whose side is a multiple of 4.
    """
    shape = data.image_shape or ()
    channels, *sides = shape if len(shape) == 3 else (1, *shape)
    if len(sides) != 2 or sides[0] != sides[1] or sides[0] % 4:
        raise ValueError(
            f"data must be square images whose side is a multiple of 4 for this model, got {shape or 'no images'}; "
            "choose another --data, or --model vae"
        )
    return channels, sides[0]


def spread(groups: int, side: int) -> list[tuple[int, int]]:
    """(side, how many groups) from the top down."""
    count(layers=groups)
    few = round(TOP * groups)
    low = max(1, (groups - few) // 3)
    top = min(max(1, few), groups - low)
    numbers = {1: top}
    for each, number in ((side // 4, groups - top - low), (side // 2, low)):
        numbers[each] = numbers.get(each, 0) + number
    return [(each, number) for each, number in numbers.items() if number]
