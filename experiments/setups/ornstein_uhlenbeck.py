"""A latent Ornstein-Uhlenbeck process as scripts train it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dlvm.experiments.data import Loader
from dlvm.experiments.options.starts import units_of
from dlvm.experiments.setups.sequences import SequenceSetup, each_step, step_dim, warn_of_bits
from dlvm.guides import ExactPosterior
from dlvm.models import OrnsteinUhlenbeck


@dataclass(frozen=True)
class OrnsteinUhlenbeckSetup(SequenceSetup):
    """A state that forgets at rates of its own between times as irregular as they come, seen through a linear map."""

    z_dim: int = 4
    """Dimensions of the state."""

    exact = "log p(x) and p(z | x), by Kalman's recursions"
    command = "--data walks.csv --sequence-column walk --time-column minute --z-dim 4 --batch-size 20 --lr 0.01"
    defaults = {"guide": "own"}

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("x", "lengths", "times")

    def model(self, data: Loader) -> OrnsteinUhlenbeck:
        """A fresh p(z) p(x | z), whose rates are about one over the median time between steps."""
        warn_of_bits(data, "--model deep_markov or hidden_markov")
        model = OrnsteinUhlenbeck(self.z_dim, step_dim(data)).to(data.device)
        units, gaps = units_of(each_step(data)), gaps_of(data)
        with torch.no_grad():
            model.log_rate.sub_(gaps.median().log())
            model.loc.copy_(units.loc)
            model.log_scale.copy_(units.scale.log())
            model.weight.mul_(units.scale.unsqueeze(-1) / self.z_dim**0.5)
        return model

    def guide(self, model: Any, data: Loader) -> nn.Module:
        """The exact posterior."""
        return ExactPosterior(model)


def gaps_of(data: Loader) -> torch.Tensor:
    """The times between neighbouring steps within the lengths; 1 where every sequence has but one step."""
    times, lengths = data["times"], data["lengths"]
    within = torch.arange(1, times.shape[1]).to(lengths) < lengths.unsqueeze(-1)
    gaps = times.diff(dim=-1)[within]
    return gaps if gaps.numel() else times.new_ones(1)
