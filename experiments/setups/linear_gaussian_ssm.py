"""The linear-Gaussian state space model as scripts train it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from dlvm.experiments.data import Loader
from dlvm.experiments.options.starts import units_of
from dlvm.experiments.setups.sequences import GuidedOverTime, each_step, step_dim, warn_of_bits
from dlvm.guides import ExactPosterior
from dlvm.models import LinearGaussianSSM


@dataclass(frozen=True)
class LinearGaussianSSMSetup(GuidedOverTime):
    """A linear-Gaussian state space model of real numbers, about their mean and in their scale at the start."""

    z_dim: int = 4
    """Dimensions of the state."""
    recurrent: int = 32
    """Width of the recurrent net that reads the sequence for a guide of a family."""
    direction: Literal["forward", "backward", "both"] = "both"
    """How it reads: backward smooths, as the posterior does; forward filters."""
    posterior: Literal["chain", "mean_field", "gaussian"] = "chain"
    """q(z_t | z_t-1, h_t), or q(z_t | h_t), each of the family --guide; or one Gaussian of all steps."""

    exact = "log p(x), filter, smoother and p(z | x), by Kalman's recursions; EM"
    command = "--data walks.npz --z-dim 4 --batch-size 20 --lr 0.01"
    defaults = {"guide": "own"}

    def model(self, data: Loader) -> LinearGaussianSSM:
        """A fresh p(z) p(x | z)."""
        warn_of_bits(data, "--model deep_markov or hidden_markov")
        model = LinearGaussianSSM(self.z_dim, step_dim(data)).to(data.device)
        units = units_of(each_step(data))
        with torch.no_grad():
            model.loc.copy_(units.loc)
            model.log_scale.copy_(units.scale.log())
            model.weight.mul_(units.scale.unsqueeze(-1) / self.z_dim**0.5)
        return model

    def guide(self, model: nn.Module, data: Loader) -> ExactPosterior:
        """The exact posterior."""
        return ExactPosterior(model)
