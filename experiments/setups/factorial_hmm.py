"""The factorial hidden Markov model as scripts train it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from dlvm.experiments.data import Loader
from dlvm.experiments.setups.hidden_markov import MOST
from dlvm.experiments.setups.sequences import SequenceSetup, is_binary, step_dim, steps_of, warn_of_bits
from dlvm.guides import ExactPosterior
from dlvm.models import BernoulliMixture, FactorialHMM, GaussianMixture


@dataclass(frozen=True)
class FactorialHMMSetup(SequenceSetup):
    """Several states at each step, each of which moves by itself; together they choose what bits or numbers follow."""

    chains: int = 2
    """States of a step."""
    states: int = 4
    """Values of each; there are states^chains joint ones."""
    emission: Literal["auto", "gaussian", "bernoulli"] = "auto"
    """p(x_t | z_t): Bernoulli, or Gaussian with a scale for each variable; auto takes bits for 0 and 1."""
    sum_out: bool = True
    """Sum the states out, so that the bound is log p(x); else the guide draws them, as the exact posterior does."""

    exact = "log p(x), p(z | x) and the best path, by sums chain by chain; EM"
    command = "--data jsb --chains 2 --states 4 --lr 0.05 --epochs 40"
    defaults = {"guide": "own"}

    @property
    def summed_out(self) -> tuple[str, ...]:
        return ("z",) if self.sum_out else ()

    def model(self, data: Loader) -> FactorialHMM:
        """A fresh p(z) p(x | z)."""
        bits = self.emission == "bernoulli" or (self.emission == "auto" and is_binary(data))
        if not bits:
            warn_of_bits(data, "--emission bernoulli")
        number, width = self.states**self.chains, step_dim(data)
        parts = BernoulliMixture(number, width) if bits else GaussianMixture(number, width, "diagonal", 1e-4)
        model = FactorialHMM(self.chains, self.states, parts, self.sum_out).to(data.device)
        return model.start_at(*steps_of(data, MOST))

    def guide(self, model: nn.Module, data: Loader) -> ExactPosterior:
        """The exact posterior."""
        return ExactPosterior(model)
