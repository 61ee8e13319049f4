"""Variational diffusion as scripts train it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from dlvm.distributions import BitDenoiser, Denoiser, LinearSchedule, MonotoneSchedule, Noising, UNet
from dlvm.distributions.diffusion.denoiser import FEATURES
from dlvm.distributions.diffusion.schedule import START
from dlvm.experiments.data import Loader
from dlvm.experiments.options.fitting import check_fits, levels_of
from dlvm.experiments.options.starts import units_of
from dlvm.experiments.setups.setup import Setup
from dlvm.experiments.setups.vdvae import image_of
from dlvm.guides import ForwardDiffusion, RandomTime
from dlvm.models import Diffusion, RandomLayer
from dlvm.nets import MLP
from dlvm.nets.arguments import count


@dataclass(frozen=True)
class DiffusionSetup(Setup):
    """Noise taken out of noise layer by layer; trained by one random layer a step, and evaluated with every layer."""

    layers: int = 50
    """How many layers the model has."""
    steps_by: Literal["random", "continuous", "every"] = "random"
    """What a step trains by: one random layer, one of infinitely many, or every layer in turn."""
    schedule: Literal["linear", "monotone"] = "linear"
    """How log-SNR falls with time between its learned ends: on a line, or along a broken one that is learned."""
    hidden: tuple[int, ...] = (256, 256)
    """Hidden layers of the net that finds the noise."""
    maps: int = 0
    """How many maps it has at each side instead, as a U-Net over square images; 0 for hidden layers."""
    values: Literal["bits", "reals", "levels"] = "bits"
    """What data are: 0 and 1, real numbers, or grey levels."""

    decoder_layers = "hidden"
    nonlinearity = nn.SiLU
    defaults: ClassVar = {"guide": "own", "warm_up": 0, "eval_particles": 10}
    exact: ClassVar[str] = "q(z | x), which is known, and the KL of every layer"
    command: ClassVar[str] = "--data digits --layers 50"

    @property
    def binary(self) -> bool:
        return self.values == "bits"

    def model(self, data: Loader) -> Diffusion:
        """A fresh p(z_T) ... p(z_0 | z_1) p(x | z_0)."""
        check_fits({"bits": "bernoulli", "levels": "grey_levels", "reals": "normal"}[self.values], data)
        count(layers=self.layers)
        levels = None if self.values == "reals" else 2 if self.binary else levels_of(data)
        start = START if levels is None else -2 * math.log(levels - 1) - 3  # noise of a fraction of a level
        schedule = LinearSchedule(start) if self.schedule == "linear" else MonotoneSchedule(start=start)
        noising = Noising(schedule, data.x_dim, levels, units_of(data.x) if levels is None else None)
        net = self.net(data)
        return Diffusion(noising, BitDenoiser(net) if self.binary else Denoiser(net), self.layers)

    def net(self, data: Loader) -> nn.Module:
        """From noisy data and how noisy they are to what is noise in them."""
        if self.maps and self.hidden != DiffusionSetup.hidden:
            raise ValueError(f"hidden and maps are of two nets, got {self.hidden} and {self.maps}; leave one out")
        if self.maps:
            return UNet(data.x_dim, self.maps, image_of(data)[0])
        return MLP(data.x_dim + FEATURES, *self.hidden, data.x_dim, activation=self.nonlinearity)

    def guide(self, model: nn.Module, data: Loader) -> ForwardDiffusion:
        """q(z_0, ..., z_T | x), which is known."""
        return ForwardDiffusion(*parts(model))

    def trained(self, model: nn.Module, guide: nn.Module) -> tuple[nn.Module, nn.Module]:
        """One random layer a step, where the guide is the known one."""
        if self.steps_by == "every" or not isinstance(guide, ForwardDiffusion) or not isinstance(model, Diffusion):
            return model, guide
        stepped = RandomLayer(model, continuous=self.steps_by == "continuous")
        return stepped, RandomTime(guide.noising, stepped.layers)


def parts(model: nn.Module) -> tuple[Noising, int]:
    """What a guide of a diffusion shares with it."""
    if not isinstance(model, Diffusion):
        raise TypeError(f"model must be a Diffusion, got {type(model).__name__}")
    return model.noising, model.layers
