"""The hidden Markov model as scripts train it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from dlvm.experiments.data import Loader
from dlvm.experiments.setups.sequences import SequenceSetup, is_binary, step_dim, steps_of, warn_of_bits
from dlvm.guides import ExactPosterior
from dlvm.models import BernoulliMixture, GaussianMixture, HiddenMarkov, PoissonMixture
from dlvm.models.mixture import Mixture

MOST = 1000  # sequences to start at


@dataclass(frozen=True)
class HiddenMarkovSetup(SequenceSetup):
    """A hidden Markov model of bits, counts or real numbers that starts at data, its states summed out or drawn."""

    states: int = 16
    """States of a step."""
    emission: Literal["auto", "gaussian", "bernoulli", "poisson"] = "auto"
    """p(x_t | z_t): Bernoulli, Gaussian with a scale for each variable, or Poisson; auto takes bits for 0 and 1."""
    sum_out: bool = True
    """Sum the states out, so that the bound is log p(x); else the guide draws them, as the exact posterior does."""

    exact = "log p(x), p(z | x) and the best path, in one pass over the steps; EM"
    command = "--data jsb --states 16 --batch-size 20 --lr 0.05 --epochs 60"
    defaults = {"guide": "own"}

    @property
    def summed_out(self) -> tuple[str, ...]:
        return ("z",) if self.sum_out else ()

    def model(self, data: Loader) -> HiddenMarkov:
        """A fresh p(z) p(x | z)."""
        width = step_dim(data)
        if self.emission == "poisson":
            parts: Mixture = PoissonMixture(self.states, width)
        elif self.emission == "bernoulli" or (self.emission == "auto" and is_binary(data)):
            parts = BernoulliMixture(self.states, width)
        else:
            warn_of_bits(data, "--emission bernoulli")
            parts = GaussianMixture(self.states, width, "diagonal", 1e-4)
        return HiddenMarkov(parts, self.sum_out).to(data.device).start_at(*steps_of(data, MOST))

    def guide(self, model: nn.Module, data: Loader) -> ExactPosterior:
        """The exact posterior."""
        return ExactPosterior(model)
