"""Principal components with random weights, of which those that are not needed vanish, as scripts train them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import tyro
from torch import nn

from dlvm.evidence.weights.posterior_predictive import PosteriorPredictive, draw_weights
from dlvm.experiments.data import Loader
from dlvm.experiments.options.weights import WEIGHTS_HELP, RandomWeights, WeightsWord
from dlvm.experiments.setups.setup import Setup
from dlvm.inference.programs.parameters import own
from dlvm.inference.programs.randomness import untouched
from dlvm.models import ARD, PPCA, Bayesian
from dlvm.nets import MLP

DRAWS = 200  # of the weights


@dataclass(frozen=True)
class BayesianPCASetup(RandomWeights, Setup):
    """A linear decoder with random weights and a learned scale for each column, which says how many are used."""

    z_dim: int = 16
    """Latent dimensions, more than are needed."""
    hidden: tuple[int, ...] = ()
    """Hidden layers of the encoder; linear unless told."""
    weights: Annotated[WeightsWord, tyro.conf.arg(help=WEIGHTS_HELP)] = "normal"
    prior_scale: float = 1.0
    """Of the weights of every column at the start."""

    encoder_layers = "hidden"
    reported: ClassVar[str] = "log p(x | D)"
    exact: ClassVar[str] = "of equal scales the best bound's shrunken singular values (Nakajima et al. 2013)"
    command: ClassVar[str] = "--data digits --binarize none --epochs 400"

    def model(self, data: Loader) -> Bayesian:
        """A fresh p(w) p(z) p(x | z, w) about the data's mean, with noise of scale 1."""
        start = torch.randn(data.x_dim, self.z_dim, device=data.device) / self.z_dim**0.5
        plain = PPCA(start, data.mean, 1.0)
        return Bayesian(plain, data.num_data, ARD(self.z_dim, self.prior_scale), only=("weight",))

    def encoder(self, data: Loader) -> MLP:
        """From x to the features of a guide."""
        return MLP(data.x_dim, *self.hidden, activation=self.nonlinearity)

    def measures(self, model: nn.Module, guide: nn.Module, data: Loader) -> Mapping[str, float]:
        """How many columns are used: those whose mean under q(w) is longer than they spread."""
        return {"columns used": float(columns_used(model))} if isinstance(model, PosteriorPredictive) else {}


def columns_used(model: PosteriorPredictive) -> int:
    """Columns of the matrix whose mean is longer than their spread under q(w)."""
    shared = own(model.shared)
    with untouched(0), torch.no_grad():
        drawn = torch.stack([draw_weights(model.bayesian, shared)["weight"] for _ in range(DRAWS)])
    return int((drawn.mean(0).square().sum(0) > drawn.var(0).sum(0)).sum())
