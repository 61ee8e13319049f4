"""The mixture of factor analysers as scripts train it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from dlvm.experiments.data import Loader
from dlvm.experiments.setups.setup import Setup
from dlvm.models import FactorAnalysers
from dlvm.nets import MLP

if TYPE_CHECKING:
    from dlvm.experiments.setups.pictures import Drawing

MOST = 10_000  # rows to start at
LEAST = 1e-2  # a column that is constant has a density still


@dataclass(frozen=True)
class FactorAnalysersSetup(Setup):
    """A mixture of factor analysers that starts at data, its component summed out or drawn by the guide."""

    components: int = 10
    """Factor analysers."""
    z_dim: int = 2
    """Factors of each."""
    sum_out: bool = True
    """Sum the component out, given the factors; else the guide draws it, as with --estimator vimco
    --num-particles 8."""
    hidden: tuple[int, ...] = (100, 100)
    """Hidden layers of the encoder; tanh."""

    exact = "log p(x) and p(y, z | x), in closed form; EM"
    command = "--data sky --components 5 --z-dim 3 --guide mixture"
    encoder_layers = "hidden"

    @property
    def summed_out(self) -> tuple[str, ...]:
        return ("y",) if self.sum_out else ()

    def model(self, data: Loader) -> FactorAnalysers:
        """A fresh p(y) p(z) p(x | y, z)."""
        model = FactorAnalysers(self.components, data.x_dim, self.z_dim, LEAST).to(data.device)
        model.start_at(data.first(min(MOST, data.num_data)))
        return model

    def encoder(self, data: Loader) -> nn.Module:
        """From x to the features of a guide."""
        return MLP(data.x_dim, *self.hidden, activation=self.nonlinearity)

    def pictures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Iterator[Drawing]:
        """Those of the exact posterior, which is no worse than any guide."""
        yield from super().pictures(model, model.guide, data)  # type: ignore[arg-type]  # a program, as a module is
