"""The stochastic recurrent neural network as scripts train it."""

from __future__ import annotations

from dataclasses import dataclass

from dlvm.experiments.data import Loader
from dlvm.experiments.setups.sequences import step_dim
from dlvm.experiments.setups.vrnn import VRNNSetup
from dlvm.models import SRNN


@dataclass(frozen=True)
class SRNNSetup(VRNNSetup):
    """A state space on top of a recurrent net of the data, with a guide over time that reads both ways."""

    def model(self, data: Loader) -> SRNN:  # type: ignore[override]  # another model of the same options
        """A fresh p(x, z)."""
        likelihood = self.emitting(self.z_dim + self.hidden, data)
        return SRNN(self.z_dim, step_dim(data), self.hidden, likelihood).to(data.device)
