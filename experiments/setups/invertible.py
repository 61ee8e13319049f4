"""What invertible models are given: data in their own units, or grey levels and the noise within their cells."""

from __future__ import annotations

from typing import Literal, TypeVar

import torch
from torch import nn

from dlvm.distributions import LogisticNoise, Standardise
from dlvm.experiments.data import Loader
from dlvm.experiments.options.fitting import check_fits, levels_of
from dlvm.experiments.options.starts import units_of
from dlvm.guides import Dequantiser, FullyObserved, latents
from dlvm.models import NICE, Dequantised, RealNVP
from dlvm.nets import MLP

T = TypeVar("T", NICE, RealNVP)
NoiseWord = Literal["uniform", "variational"]
STARTED_FROM = 1000  # rows that start what starts from data


def grey_levels(data: Loader) -> int | None:
    """How many grey levels images have, whose density is that of dequantised numbers; None for data in columns.

    Raises:
        ValueError: entries are missing; columns are no real numbers, or images have no grey levels.
    """
    if data.has_missing:
        raise ValueError(
            "data have missing entries, over which an invertible model cannot integrate; --model vae takes them, or "
            "give rows without holes"
        )
    if data.image_shape is not None:
        return levels_of(data)
    check_fits("flow", data)
    return None


def in_units(data: Loader) -> Standardise:
    """Columns less their mean, over their standard deviation."""
    units = units_of(data.x)
    return Standardise(units.loc, units.scale)


def started(model: T, data: Loader) -> T | Dequantised:
    """The model, started from the first rows, and of grey levels where the data are images."""
    model, levels, x = model.to(data.device), grey_levels(data), data.first(STARTED_FROM)
    if levels is None:
        model.initialise(x)
        return model
    model.initialise((x * (levels - 1) + torch.rand_like(x)) / levels)
    return Dequantised(model, levels)


def guide_of(model: nn.Module, data: Loader, noise: NoiseWord, hidden: tuple[int, ...]) -> nn.Module:
    """A guide that draws nothing but the noise of grey levels: uniform, or by a net of these hidden layers."""
    if not isinstance(model, Dequantised):
        return FullyObserved()
    net = MLP(data.x_dim, *hidden, activation=nn.ELU, output=nn.ELU if hidden else nn.Identity)
    posterior = LogisticNoise(net, data.x_dim) if noise == "variational" else None
    return Dequantiser(FullyObserved(), latents(model, *data.examples)["u"], posterior)
