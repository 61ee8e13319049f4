"""NICE as scripts train it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import nn

from dlvm.experiments.data import Loader
from dlvm.experiments.setups.invertible import NoiseWord, grey_levels, guide_of, in_units, started
from dlvm.experiments.setups.setup import Setup
from dlvm.models import NICE, Dequantised

if TYPE_CHECKING:
    from dlvm.experiments.setups.pictures import Drawing


@dataclass(frozen=True)
class NICESetup(Setup):
    """Additive couplings and one scale for each number: columns in their own units, or dequantised grey levels."""

    depth: int = 4
    """Couplings; each second one keeps the other half of the numbers."""
    hidden: tuple[int, ...] = (200, 200)
    """Hidden layers of their nets; of a variational dequantiser, too."""
    noise: Literal["logistic", "normal"] = "logistic"
    """What data are taken to."""
    dequantiser: NoiseWord = "uniform"
    """Noise within the cells of grey levels: uniform, or variational, learned of x."""

    defaults: ClassVar = {"guide": "own"}
    exact: ClassVar[str] = "log p(x), and draws in one pass; of grey levels a bound, by the noise within their cells"
    command: ClassVar[str] = "--data digits --depth 6 --epochs 40"
    nonlinearity = nn.ReLU

    def model(self, data: Loader) -> NICE | Dequantised:
        """A fresh p(x), its scales started from the data."""
        before = None if grey_levels(data) is not None else in_units(data)
        return started(NICE(data.x_dim, self.hidden, self.depth, self.noise, before), data)

    def guide(self, model: nn.Module, data: Loader) -> nn.Module:
        """What draws nothing but the noise of grey levels."""
        return guide_of(model, data, self.dequantiser, self.hidden)

    def pictures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Iterator[Drawing]:
        """Draws, beside data."""
        from dlvm.experiments.setups.pictures import drawn_beside

        yield from drawn_beside(model, data)
