"""The switching linear system as scripts train it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from dlvm.experiments.data import Loader
from dlvm.experiments.options.starts import units_of
from dlvm.experiments.setups.sequences import GuidedOverTime, each_step, step_dim, warn_of_bits
from dlvm.models import SwitchingSSM


@dataclass(frozen=True)
class SwitchingSSMSetup(GuidedOverTime):
    """A linear system whose class at each step chooses how the state moves; the classes are summed out."""

    states: int = 3
    """How many classes."""
    z_dim: int = 4
    """Dimensions of the state."""
    recurrent: int = 32
    """Width of the recurrent net that reads the sequence for the guide."""
    direction: Literal["forward", "backward", "both"] = "both"
    """How it reads: backward smooths, as the posterior does; forward filters."""
    posterior: Literal["chain", "mean_field", "gaussian"] = "chain"
    """q(z_t | z_t-1, h_t), or q(z_t | h_t), each of the family --guide; or one Gaussian of all steps."""

    exact = "p(z), summed over paths of classes; p(z | x, y), by Kalman's recursions"
    command = "--data walks.npz --states 3 --z-dim 4 --batch-size 20 --lr 0.01"

    def model(self, data: Loader) -> SwitchingSSM:
        """A fresh p(y) p(z | y) p(x | z), about the mean of the data and in their scale."""
        warn_of_bits(data, "--model deep_markov or hidden_markov")
        model = SwitchingSSM(self.states, self.z_dim, step_dim(data)).to(data.device)
        units = units_of(each_step(data))
        with torch.no_grad():
            model.loc.copy_(units.loc)
            model.log_scale.copy_(units.scale.log())
            model.weight.mul_(units.scale.unsqueeze(-1) / self.z_dim**0.5)
        return model
