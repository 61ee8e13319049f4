"""The masked autoencoder as scripts train it, in one order of the variables or in several."""

from __future__ import annotations

from dataclasses import dataclass

from dlvm.distributions import ChainRule
from dlvm.experiments.data import Loader
from dlvm.experiments.options.variables import VariableWord, dim_of, element_of, start_of
from dlvm.experiments.setups.setup import Setup
from dlvm.models import FullyVisible
from dlvm.nets import OrderedMADE


@dataclass(frozen=True)
class MADESetup(Setup):
    """One pass through masked layers for all variables; ReLU.

    References:
        MADE: Masked Autoencoder for Distribution Estimation, Germain, Gregor, Murray, Larochelle, 2015,
        arXiv:1502.03509.
    """

    hidden: tuple[int, ...] = (500,)
    """Hidden layers."""
    orders: int = 1
    """Orders in which the variables are read, which share the weights: p(x) is the mean of their densities."""
    direct: bool = True
    """Whether each variable sees those before it without a hidden layer between, too."""
    variables: VariableWord = "bits"
    """What x is made of: bits, greys (a probability for each level) or a mixture of rounded logistics over
    these; of sequences and classes, tokens."""

    exact = "log p(x), by the chain rule; of several orders the mean density"
    command = "--data binarized_mnist --hidden 500 --lr-decay 0.97 --epochs 60"

    @property
    def binary(self) -> bool:
        return self.variables == "bits"

    def model(self, data: Loader) -> FullyVisible:
        """A fresh p(x)."""
        element = element_of(self.variables, data)
        net = OrderedMADE(dim_of(data), self.hidden, element.outputs, orders=self.orders, direct=self.direct)
        return FullyVisible(ChainRule(net, element, start=start_of(element, data)))
