"""The mixture of Bernoulli variables as scripts train it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from dlvm.experiments.data import Loader
from dlvm.experiments.setups.setup import Setup
from dlvm.models import BernoulliMixture
from dlvm.nets import MLP

if TYPE_CHECKING:
    from dlvm.experiments.setups.pictures import Drawing

MOST = 10_000  # rows to start at


@dataclass(frozen=True)
class BernoulliMixtureSetup(Setup):
    """A mixture of independent bits that starts at data, its component summed out or drawn by the guide."""

    components: int = 10
    """Vectors of probabilities."""
    sum_out: bool = True
    """Sum the component out, so that the bound is log p(x); else the guide draws it, as with --estimator vimco
    --num-particles 8."""
    hidden: tuple[int, ...] = (64,)
    """Hidden layers of the encoder of a guide that draws it; tanh."""

    binary = True
    exact = "log p(x) and p(z | x), in closed form; EM"
    command = "--data binarized_mnist --components 50"
    encoder_layers = "hidden"

    @property
    def summed_out(self) -> tuple[str, ...]:
        return ("z",) if self.sum_out else ()

    def model(self, data: Loader) -> BernoulliMixture:
        """A fresh p(z) p(x | z)."""
        model = BernoulliMixture(self.components, data.x_dim).to(data.device)
        model.start_at(data.first(min(MOST, data.num_data)))
        return model

    def encoder(self, data: Loader) -> nn.Module:
        """From x to the features of a guide."""
        return MLP(data.x_dim, *self.hidden, activation=self.nonlinearity)

    def pictures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Iterator[Drawing]:
        """Those of the exact posterior, which is no worse than any guide."""
        yield from super().pictures(model, model.guide, data)  # type: ignore[arg-type]  # a program, as a module is
