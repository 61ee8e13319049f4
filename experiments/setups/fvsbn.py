"""The fully visible sigmoid belief network as scripts train it."""

from __future__ import annotations

from dataclasses import dataclass

from dlvm.distributions import ChainRule
from dlvm.experiments.data import Loader
from dlvm.experiments.options.variables import VariableWord, dim_of, element_of, start_of
from dlvm.experiments.setups.setup import Setup
from dlvm.models import FullyVisible
from dlvm.nets import OrderedMADE


@dataclass(frozen=True)
class FVSBNSetup(Setup):
    """Each variable by a logistic regression on those before it; log p(x) is concave in the weights.

    References:
        Does the Wake-Sleep Algorithm Produce Good Density Estimators?, Frey, Hinton, Dayan, 1996.
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 4.3, arXiv:1906.02691.
    """

    variables: VariableWord = "bits"
    """What x is made of: bits, greys (a probability for each level) or a mixture of rounded logistics over
    these; of sequences and classes, tokens."""

    exact = "log p(x), by the chain rule"
    command = "--data binarized_mnist --lr-decay 0.95 --epochs 60"

    @property
    def binary(self) -> bool:
        return self.variables == "bits"

    def model(self, data: Loader) -> FullyVisible:
        """A fresh p(x)."""
        element = element_of(self.variables, data)
        net = OrderedMADE(dim_of(data), (), element.outputs)
        return FullyVisible(ChainRule(net, element, start=start_of(element, data)))
