"""The deep Markov model as scripts train it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import nn

from dlvm.distributions import GatedTransition
from dlvm.experiments.data import Loader
from dlvm.experiments.options.likelihoods import LikelihoodWord, likelihood_of
from dlvm.experiments.setups.sequences import GuidedOverTime, each_step
from dlvm.models import DeepMarkov
from dlvm.nets import MLP

CELLS: dict[str, Callable[..., nn.Module]] = {
    "gru": nn.GRU,
    "relu": partial(nn.RNN, nonlinearity="relu"),
    "tanh": nn.RNN,
}


@dataclass(frozen=True)
class DeepMarkovSetup(GuidedOverTime):
    """A deep Markov model, and a guide over time whose steps are of the family that is asked for."""

    z_dim: int = 32
    """Dimensions of a state."""
    emission: tuple[int, ...] = (100, 100)
    """Hidden layers of p(x_t | z_t); ReLU."""
    transition: int = 100
    """Width of the hidden layers of p(z_t | z_t-1)."""
    recurrent: int = 200
    """Width of the recurrent net that reads the sequence for the guide."""
    cell: Literal["gru", "relu", "tanh"] = "gru"
    """Of that net: gated, or plain with this nonlinearity."""
    direction: Literal["forward", "backward", "both"] = "backward"
    """How it reads: backward smooths, as the posterior does; forward filters."""
    posterior: Literal["chain", "mean_field", "gaussian"] = "chain"
    """q(z_t | z_t-1, h_t), or q(z_t | h_t), each of the family --guide; or one Gaussian of all steps."""
    likelihood: LikelihoodWord = "bernoulli"
    """p(x_t | z_t), as for vae."""

    exact = "the density of linear dynamics, where nets are linear"
    command = "--data jsb --z-dim 100 --recurrent 600 --cell relu --transition 200 --batch-size 20 --lr 3e-4"

    def model(self, data: Loader) -> DeepMarkov:
        """A fresh p(z) p(x | z)."""
        steps = Loader(each_step(data), missing=data.has_missing, kind=None)
        net = MLP(self.z_dim, *self.emission, output=nn.ReLU if self.emission else nn.Identity)
        transition = GatedTransition(self.z_dim, self.transition)
        return DeepMarkov(self.z_dim, likelihood_of(self.likelihood, net, steps), transition).to(data.device)

    @property
    def reader(self) -> Callable[..., nn.Module]:
        """Makes the recurrent net."""
        return CELLS[self.cell]
