"""The neural autoregressive distribution estimator as scripts train it."""

from __future__ import annotations

from dataclasses import dataclass

from dlvm.distributions import ChainRule
from dlvm.experiments.data import Loader
from dlvm.experiments.options.variables import VariableWord, dim_of, element_of, start_of
from dlvm.experiments.setups.setup import Setup
from dlvm.models import FullyVisible
from dlvm.nets import NADE


@dataclass(frozen=True)
class NADESetup(Setup):
    """A hidden layer for each variable, on those before it, by weights that all share.

    References:
        The Neural Autoregressive Distribution Estimator, Larochelle, Murray, 2011.
    """

    hidden: int = 200
    """Units of the hidden layers; memory grows as hidden times columns times the batch."""
    variables: VariableWord = "bits"
    """What x is made of: bits, greys (a probability for each level) or a mixture of rounded logistics over
    these; of sequences and classes, tokens."""

    exact = "log p(x), by the chain rule"
    command = "--data digits --hidden 100 --epochs 60"

    @property
    def binary(self) -> bool:
        return self.variables == "bits"

    def model(self, data: Loader) -> FullyVisible:
        """A fresh p(x)."""
        element = element_of(self.variables, data)
        net = NADE(dim_of(data), self.hidden, element.outputs)
        return FullyVisible(ChainRule(net, element, start=start_of(element, data)))
