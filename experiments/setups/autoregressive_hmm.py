"""The autoregressive and the neural hidden Markov model as scripts train them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from dlvm.distributions import Bernoulli, LearnedScale, Normal
from dlvm.experiments.data import Loader
from dlvm.experiments.options.starts import units_of
from dlvm.experiments.setups.sequences import SequenceSetup, each_step, is_binary, step_dim, warn_of_bits
from dlvm.guides import ExactPosterior
from dlvm.models import AutoregressiveHMM
from dlvm.nets import MLP, SwitchingDiagonal, SwitchingLinear


@dataclass(frozen=True)
class AutoregressiveHMMSetup(SequenceSetup):
    """A hidden Markov model whose steps depend on the last one as well: by tables, linearly, or by a network."""

    states: int = 16
    """States of a step."""
    emission: Literal["auto", "gaussian", "bernoulli"] = "auto"
    """p(x_t | z_t, x_t-1): Bernoulli, or Gaussian with a scale for each variable; auto takes bits for 0 and 1."""
    hidden: tuple[int, ...] = ()
    """Hidden layers of a network of z_t and x_t-1, tanh; without any, bits have tables, one for the state and the bit's
    own last value, and real numbers a linear map for each state."""
    sum_out: bool = True
    """Sum the states out, so that the bound is log p(x); else the guide draws them, as the exact posterior does."""

    exact = "log p(x), p(z | x) and the best path, in one pass over the steps"
    command = "--data jsb --states 16 --lr 0.03 --epochs 40"
    defaults = {"guide": "own"}
    decoder_layers = "hidden"

    @property
    def summed_out(self) -> tuple[str, ...]:
        return ("z",) if self.sum_out else ()

    def model(self, data: Loader) -> AutoregressiveHMM:
        """A fresh p(z) p(x | z)."""
        width, steps = step_dim(data), each_step(data)
        bits = self.emission == "bernoulli" or (self.emission == "auto" and is_binary(data))
        if not bits:
            warn_of_bits(data, "--emission bernoulli")
        net: nn.Module = SwitchingDiagonal(self.states, width) if bits else SwitchingLinear(self.states, width, width)
        if self.hidden:
            net = MLP(self.states + width, *self.hidden, width, activation=self.nonlinearity)
        likelihood = (
            Bernoulli(net, steps.mean(0)) if bits else Normal(net, width, units_of(steps), LearnedScale(dim=width))
        )
        return AutoregressiveHMM(self.states, width, likelihood, self.sum_out).to(data.device)

    def guide(self, model: nn.Module, data: Loader) -> ExactPosterior:
        """The exact posterior."""
        return ExactPosterior(model)
