"""A column given all others, as scripts train it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from dlvm.distributions import LearnedScale, Normal, Units
from dlvm.experiments.data import Loader
from dlvm.experiments.measures.predictions import coverage
from dlvm.experiments.options.common import ACTIVATIONS, ActivationWord
from dlvm.experiments.options.starts import units_of
from dlvm.experiments.setups.setup import Setup, check_whole
from dlvm.inference import predict
from dlvm.models import Conditional
from dlvm.nets import MLP, Standardised

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlvm.experiments.setups.pictures import Drawing


@dataclass(frozen=True)
class RegressionSetup(Setup):
    """One column of a table by a network of all others and a Gaussian, without latents."""

    target: str = "0"
    """The column that is predicted: its name, or its number from 0."""
    hidden: tuple[int, ...] = (100, 100)
    """Hidden layers of the network."""
    activation: ActivationWord = "tanh"
    """Between them."""
    same_spread: bool = False
    """One standard deviation for all data, instead of one that the network gives for each."""

    defaults = {"objective": "maximum_likelihood"}
    reported: ClassVar[str] = "log p(y | x)"
    exact: ClassVar[str] = "log p(y | x)"
    command: ClassVar[str] = "--data sky --target r --epochs 50"

    def model(self, data: Loader) -> Conditional:
        """A fresh p(y | x), in the units of the columns."""
        check_whole(data)
        at, units = self.column(data), units_of(data.x)
        others = [i for i in range(data.x_dim) if i != at]
        if not others:
            raise ValueError("data must have two columns or more, of which one is --target, got one")
        layers, act = (len(others), *self.hidden), ACTIVATIONS[self.activation]
        seen = Standardised(MLP(*layers, activation=act, output=act), units.loc[others], units.scale[others])
        own = Units(units.loc[[at]], units.scale[[at]])
        return Conditional(Normal(seen, 1, own, LearnedScale(dim=1) if self.same_spread else None), at)

    def column(self, data: Loader) -> int:
        """The target's number."""
        names = tuple(data.columns or ())
        if self.target in names:
            return names.index(self.target)
        if self.target.isdecimal() and int(self.target) < data.x_dim:
            return int(self.target)
        known = f"{', '.join(names)}, or a number" if names else "a number"
        raise ValueError(f"target (--target) must be {known} from 0 to {data.x_dim - 1}, got {self.target!r}")

    def measures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Mapping[str, float]:
        """Root mean squared error in the column's own units, and how honest the intervals are."""
        y, mean, sd = self.predicted(model, guide, data)
        shares = {f"in {level:.0%} interval": share for level, share in coverage(y, mean, sd).items()}
        return {"RMSE": (y - mean).square().mean().sqrt().item(), **shares}

    def predicted(self, model: nn.Module, guide: nn.Module, data: Loader) -> tuple[Tensor, Tensor, Tensor]:
        """The target of data, and mean and standard deviation of what is predicted, shape (n, 1) each."""
        x, at = data.first(data.num_data), self.column(data)
        found = predict(model, guide, x, "y", num_particles=1)
        return x[:, at : at + 1].cpu(), found.mean.cpu(), found.sd.cpu()

    def pictures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Iterator[Drawing]:
        """What is predicted against what is."""
        drawn = partial(_predictions, self, model, guide, data)
        yield "predictions", drawn, "The mean of p(y | x) and its 90 % interval, against y, on test data."


def _predictions(setup: RegressionSetup, model: nn.Module, guide: nn.Module, data: Loader) -> Figure:
    from dlvm.experiments.figures import predictions

    y, mean, sd = (part[:, 0] for part in setup.predicted(model, guide, data))
    return predictions(y, mean, sd, data.columns[setup.column(data)] if data.columns else "y")
