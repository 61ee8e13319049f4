"""Classes given data, as scripts train them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from dlvm.distributions import Categorical
from dlvm.experiments.data import Loader
from dlvm.experiments.measures.predictions import Classified, classified
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
class ClassifierSetup(Setup):
    """The class of a datum by a network and a softmax, without latents, for data with labels."""

    hidden: tuple[int, ...] = (200,)
    """Hidden layers of the network."""
    activation: ActivationWord = "tanh"
    """Between them."""

    defaults = {"objective": "maximum_likelihood"}
    inputs = ("x", "y")
    reported: ClassVar[str] = "log p(y | x)"
    exact: ClassVar[str] = "log p(y | x)"
    command: ClassVar[str] = "--data digits --epochs 50"

    def model(self, data: Loader) -> Conditional:
        """A fresh p(y | x), which sees columns of numbers on one scale."""
        check_whole(data)
        classes = int(data["y"].max()) + 1 if data.label_names is None else len(data.label_names)
        net = MLP(data.x_dim, *self.hidden, classes, activation=ACTIVATIONS[self.activation])
        units = units_of(data.x)
        seen = net if data.kind in ("binary", "grey", "image") else Standardised(net, units.loc, units.scale)
        return Conditional(Categorical(seen))

    def measures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Mapping[str, float]:
        """Accuracy, and how honest the probabilities are."""
        found = predicted(model, guide, data)
        return {"accuracy": found.accuracy, "calibration error": found.ece}

    def pictures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Iterator[Drawing]:
        """How often the most probable class is right, by its probability."""
        yield (
            "reliability",
            partial(_reliability, model, guide, data),
            "How often the most probable class is the true one, against its probability, on test data.",
        )


def predicted(model: nn.Module, guide: nn.Module, data: Loader) -> Classified:
    """What is predicted of data, against their labels."""
    x, y = data.first(data.num_data), data["y"]
    return classified(predict(model, guide, (x, None), "y", num_particles=1).probabilities.cpu(), y.cpu())


def _reliability(model: nn.Module, guide: nn.Module, data: Loader) -> Figure:
    from dlvm.experiments.figures import reliability

    found = predicted(model, guide, data)
    return reliability(found.confidence, found.right, found.number)
