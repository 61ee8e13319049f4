"""A column given all others by a linear model, or a network, with random weights, as scripts train it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
import tyro
from torch import Tensor, nn

from dlvm.experiments.data import Loader
from dlvm.experiments.measures.predictions import coverage
from dlvm.experiments.options.common import ActivationWord
from dlvm.experiments.options.weights import WEIGHTS_HELP, RandomWeights, WeightsWord, bayesian
from dlvm.experiments.setups.regression import RegressionSetup
from dlvm.experiments.setups.setup import Setup
from dlvm.models import Bayesian

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlvm.experiments.setups.pictures import Drawing

DRAWS = 200  # of the weights


@dataclass(frozen=True)
class BayesianRegressionSetup(RandomWeights, Setup):
    """One column of a table, linear in all others, or by a network, with random weights and one learned spread."""

    target: str = "0"
    """The column that is predicted: its name, or its number from 0."""
    hidden: tuple[int, ...] = ()
    """Hidden layers of the network; none is Bayesian linear regression, of which all is known."""
    activation: ActivationWord = "tanh"
    """Between them."""
    weights: Annotated[WeightsWord, tyro.conf.arg(help=WEIGHTS_HELP)] = "full_rank"
    prior_scale: float = 1.0
    """Standard deviation of a weight under its prior, times the root of how many its unit has, in units of the data."""
    last_layer: bool = False
    """Random weights in the last layer alone."""

    defaults = {"eval_particles": DRAWS}
    reported: ClassVar[str] = "log p(y | x, D)"
    exact: ClassVar[str] = "without hidden layers p(w | D), log p(D) and p(y | x, D), by weight_posterior"
    command: ClassVar[str] = "--data sky --target r --epochs 200"

    def model(self, data: Loader) -> Bayesian:
        """A fresh p(w) p(y | x, w), in the units of the columns."""
        return bayesian(self._plain.model(data), data, self.prior_scale, self.last_layer)

    def measures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Mapping[str, float]:
        """Root mean squared error in the column's own units, and how honest the intervals are."""
        y, mean, sd = self.predicted(model, data)
        shares = {f"in {level:.0%} interval": share for level, share in coverage(y, mean, sd).items()}
        return {"RMSE": (y - mean).square().mean().sqrt().item(), **shares}

    def predicted(self, model: Any, data: Loader) -> tuple[Tensor, Tensor, Tensor]:
        """The target of data, and mean and standard deviation of what is predicted, shape (n, 1) each."""
        x, at = data.first(data.num_data), self._plain.column(data)
        found = list(model.given_weights("y", x, num_weights=DRAWS))
        means, variances = (torch.stack(part) for part in ([fn.mean for fn in found], [fn.variance for fn in found]))
        sd = (variances.mean(0) + means.var(0, correction=0)).sqrt()
        return x[:, at : at + 1].cpu(), means.mean(0).cpu(), sd.cpu()

    def pictures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Iterator[Drawing]:
        """What is predicted against what is."""
        drawn = partial(_predictions, self, model, data)
        yield "predictions", drawn, "The mean of p(y | x, D) and its 90 % interval, against y, on test data."

    @property
    def _plain(self) -> RegressionSetup:
        """That without a prior."""
        return RegressionSetup(self.target, self.hidden, self.activation, same_spread=True)


def _predictions(setup: BayesianRegressionSetup, model: Any, data: Loader) -> Figure:
    from dlvm.experiments.figures import predictions

    y, mean, sd = (part[:, 0] for part in setup.predicted(model, data))
    return predictions(y, mean, sd, data.columns[setup._plain.column(data)] if data.columns else "y")
