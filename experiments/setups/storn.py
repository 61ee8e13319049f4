"""The stochastic recurrent network as scripts train it."""

from __future__ import annotations

from dataclasses import dataclass

from dlvm.experiments.data import Loader
from dlvm.experiments.setups.sequences import step_dim
from dlvm.experiments.setups.vrnn import VRNNSetup
from dlvm.models import STORN


@dataclass(frozen=True)
class STORNSetup(VRNNSetup):
    """Noise at each step of a recurrent net of the data, with a guide over time."""

    def model(self, data: Loader) -> STORN:  # type: ignore[override]  # another model of the same options
        """A fresh p(x, z)."""
        likelihood = self.emitting(self.hidden, data)
        return STORN(self.z_dim, step_dim(data), self.hidden, likelihood).to(data.device)
