"""The sigmoid belief network as scripts train it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from dlvm.experiments.data import Loader
from dlvm.experiments.options.fitting import check_fits
from dlvm.experiments.setups.setup import Setup, check_whole
from dlvm.guides import Chain, latents
from dlvm.models import SigmoidBeliefNetwork
from dlvm.nets import MLP, Standardised


@dataclass(frozen=True)
class SBNSetup(Setup):
    """One to three layers of bits, or more, inferred from the bottom up by nets that mirror those of the model."""

    sizes: tuple[int, ...] = (200, 200, 200)
    """Bits of z1, z2, ..., z1 nearest x."""
    nonlinear: bool = False
    """Whether two layers of tanh stand between a layer and the next, as wide as the one that they start from (from x:
    as z1)."""

    binary = True
    defaults: ClassVar = {
        "guide": "own",
        "objective": "iwae",
        "estimator": "vimco",
        "num_particles": 5,
        "warm_up": 0,
        "objectives": ("elbo:nvil", "iwae:vimco", "rws"),
    }
    exact: ClassVar[str] = "log p(x), by enumeration of up to 2^16 values"
    command: ClassVar[str] = "--data binarized_mnist --sizes 200 200 200 --num-particles 5 --lr 3e-4"

    def model(self, data: Loader) -> SigmoidBeliefNetwork:
        """A fresh p(zL) ... p(z1 | z2) p(x | z1)."""
        check_whole(data)
        check_fits("bernoulli", data)
        return SigmoidBeliefNetwork(data.x_dim, self.sizes, self.nonlinear, data.mean)

    def encoder(self, data: Loader) -> nn.Module:
        """From x, less the mean of the data, to what q(z1 | x) takes."""
        between = (self.sizes[0],) * 2 if self.nonlinear else ()
        net = MLP(data.x_dim, *between, activation=nn.Tanh)
        return Standardised(net, data.mean, torch.ones_like(data.mean))

    def guide(self, model: nn.Module, data: Loader) -> Chain:
        """q(z1 | x) q(z2 | z1) ..., each by a net like that of the model in the other direction."""
        above = zip(range(2, len(self.sizes) + 1), self.sizes, strict=False)
        hidden = {f"z{level}": (below, below) if self.nonlinear else () for level, below in above}
        return Chain(latents(model, *data.examples), self.encoder(data), hidden=hidden)
