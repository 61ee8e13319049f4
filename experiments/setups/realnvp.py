"""RealNVP as scripts train it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from dlvm.distributions import Composition, Logit, image_flow, vector_flow
from dlvm.experiments.data import Loader
from dlvm.experiments.options.variables import picture_shape
from dlvm.experiments.setups.invertible import NoiseWord, grey_levels, guide_of, in_units, started
from dlvm.experiments.setups.setup import Setup
from dlvm.models import Dequantised, RealNVP

if TYPE_CHECKING:
    from dlvm.experiments.setups.pictures import Drawing


@dataclass(frozen=True)
class RealNVPSetup(Setup):
    """Affine couplings: of columns in their own units, or of dequantised images by several scales; ELU."""

    depth: int = 3
    """Couplings of a kind at each scale of images; over columns, pairs of couplings."""
    hidden: tuple[int, ...] = (64, 64)
    """Hidden layers of the couplings' nets over columns; of a variational dequantiser."""
    scales: int = 2
    """Scales of images, each of half the sides of the one before."""
    width: int = 32
    """Maps inside the couplings' nets over images."""
    blocks: int = 2
    """Residual blocks of these."""
    actnorm: bool = False
    """Put a scale and a shift for each channel before each coupling, started from the data."""
    mixing: bool = False
    """Put an invertible 1x1 convolution before each coupling over channels."""
    margin: float = 0.05
    """Of the logit that takes grey levels, dequantised, to all real numbers."""
    dequantiser: NoiseWord = "uniform"
    """Noise within the cells of grey levels: uniform, or variational, learned of x."""

    defaults: ClassVar = {"guide": "own"}
    exact: ClassVar[str] = "log p(x), and draws in one pass; of grey levels a bound, by the noise within their cells"
    command: ClassVar[str] = "--data digits --actnorm --mixing --width 16 --epochs 20"
    nonlinearity = nn.ELU

    def model(self, data: Loader) -> RealNVP | Dequantised:
        """A fresh p(x), its scales started from the data."""
        if grey_levels(data) is None:
            steps = vector_flow(data.x_dim, 2 * self.depth, self.hidden, actnorm=self.actnorm)
            return started(RealNVP(data.x_dim, Composition(in_units(data), steps)), data)
        flow = image_flow(
            picture_shape(data),
            self.scales,
            self.depth,
            self.width,
            self.blocks,
            actnorm=self.actnorm,
            mixing=self.mixing,
        )
        return started(RealNVP(data.x_dim, Composition(Logit(self.margin), flow)), data)

    def guide(self, model: nn.Module, data: Loader) -> nn.Module:
        """What draws nothing but the noise of grey levels."""
        return guide_of(model, data, self.dequantiser, self.hidden)

    def pictures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Iterator[Drawing]:
        """Draws, beside data."""
        from dlvm.experiments.setups.pictures import drawn_beside

        yield from drawn_beside(model, data)
