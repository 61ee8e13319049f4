"""Classes given data by a network with random weights, as scripts train it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

import torch
import tyro
from torch import nn

from dlvm.distributions.supports import inner
from dlvm.evidence import PosteriorPredictive
from dlvm.experiments.data import Loader
from dlvm.experiments.measures.predictions import Classified, classified
from dlvm.experiments.options.common import ActivationWord
from dlvm.experiments.options.weights import WEIGHTS_HELP, RandomWeights, WeightsWord, bayesian
from dlvm.experiments.setups.classifier import ClassifierSetup
from dlvm.experiments.setups.setup import Setup
from dlvm.models import Bayesian

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlvm.experiments.setups.pictures import Drawing

DRAWS = 100  # of the weights


@dataclass(frozen=True)
class BayesianClassifierSetup(RandomWeights, Setup):
    """The class of a datum by a network whose weights are random: p(y | x, D) is a mean over q(w)."""

    hidden: tuple[int, ...] = (200,)
    """Hidden layers of the network."""
    activation: ActivationWord = "tanh"
    """Between them."""
    weights: Annotated[WeightsWord, tyro.conf.arg(help=WEIGHTS_HELP)] = "normal"
    prior_scale: float = 1.0
    """Standard deviation of a weight under its prior, times the root of how many its unit has."""
    last_layer: bool = False
    """Random weights in the last layer alone."""

    defaults = {"eval_particles": DRAWS}
    inputs = ("x", "y")
    reported: ClassVar[str] = "log p(y | x, D)"
    exact: ClassVar[str] = "log p(y | x, w), for a draw of the weights"
    command: ClassVar[str] = "--data digits --epochs 100"

    def model(self, data: Loader) -> Bayesian:
        """A fresh p(w) p(y | x, w), which sees columns of numbers on one scale."""
        plain = ClassifierSetup(self.hidden, self.activation).model(data)
        return bayesian(plain, data, self.prior_scale, self.last_layer)

    def measures(self, model: Any, guide: nn.Module, data: Loader) -> Mapping[str, float]:
        """Accuracy, and how honest the probabilities are."""
        found = predicted(model, data)
        return {"accuracy": found.accuracy, "calibration error": found.ece}

    def pictures(self, model: Any, guide: nn.Module, data: Loader) -> Iterator[Drawing]:
        """How often the most probable class is right, by its probability."""
        yield (
            "reliability",
            partial(_reliability, model, data),
            f"How often the most probable class is the true one, against its probability, a mean over {DRAWS} draws of "
            "the weights, on test data.",
        )


def predicted(model: PosteriorPredictive, data: Loader) -> Classified:
    """What is predicted of data by draws of the weights, against their labels."""
    x, y = data.first(data.num_data), data["y"]
    found = [cast(Any, inner(fn)).probs for fn in model.given_weights("y", x, None, num_weights=DRAWS)]
    return classified(torch.stack(found).mean(0).cpu(), y.cpu())


def _reliability(model: PosteriorPredictive, data: Loader) -> Figure:
    from dlvm.experiments.figures import reliability

    found = predicted(model, data)
    return reliability(found.confidence, found.right, found.number)
