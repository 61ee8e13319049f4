"""What a likelihood starts from: moments of the columns of data, of what is there in them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dlvm.distributions import LearnedScale, LogisticNoise, Units
from dlvm.experiments.data import Loader
from dlvm.experiments.options.fitting import levels_of

MOST_AT_ONCE = 10_000_000


def units_of(x: Tensor) -> Units:
    """Mean and standard deviation of each column, of what is there; a column that is constant has scale 1."""
    dtype, x = x.dtype, x.double()
    there = (~x.isnan()).sum(0).clamp_min(1)
    loc = x.nansum(0) / there
    scale = ((x - loc).square().nansum(0) / there).sqrt()
    scale = torch.where(scale > 1e-6 * loc.abs().clamp_min(1e-30), scale, 1.0)
    return Units(loc.to(dtype), scale.to(dtype))


def shared_units_of(x: Tensor) -> Units:
    """Mean of each column, and one scale for all: the root of their mean variance."""
    units = units_of(x)
    varying = units.scale[(x != x[0]).any(0)] if len(x) > 1 else units.scale
    return Units(units.loc, (varying if varying.numel() else units.scale).square().mean().sqrt().expand_as(units.scale))


def robust_units_of(x: Tensor) -> Units:
    """Median and interquartile range over 1.35 of each column; those of ``units_of`` where that is 0."""
    usual, quartiles = units_of(x), torch.tensor([0.25, 0.5, 0.75], device=x.device).double()
    columns = x.split(max(1, MOST_AT_ONCE // len(x)), 1)  # torch sorts 16 million numbers at most
    low, middle, high = torch.cat([part.double().nanquantile(quartiles, 0) for part in columns], 1).to(x.dtype)
    wide = high > low
    return Units(torch.where(wide, middle, usual.loc), torch.where(wide, (high - low) / 1.35, usual.scale))


def rates_of(x: Tensor) -> Tensor:
    """Mean of each column of counts, with half a count and a datum more, so that none is 0."""
    return ((x.double().nansum(0) + 0.5) / ((~x.isnan()).sum(0) + 1)).to(x.dtype)


def dispersion_of(x: Tensor) -> LearnedScale:
    """By moments of each column, (variance - mean) / mean^2, between 0.01 and 100."""
    units = units_of(x)
    excess = (units.scale.square() - units.loc) / units.loc.square().clamp_min(1e-12)
    learned = LearnedScale(dim=x.shape[1])
    with torch.no_grad():
        learned.log_scale.copy_(excess.clamp(0.01, 100).log())
    return learned


def started(head: nn.Linear, raw: Tensor) -> None:
    """Starts the first numbers that a layer gives at ``raw``."""
    with torch.no_grad():
        head.bias[: raw.numel()] = raw.flatten()


def within_cells(data: Loader) -> Loader:
    """Numbers y = (k + u) / levels of grey levels k / (levels - 1), with one uniform u for each, always the same."""
    levels = levels_of(data)
    u = torch.rand(data.x.shape, generator=torch.Generator().manual_seed(0)).to(data.x)
    return Loader(
        (data.x * (levels - 1) + u) / levels,
        data.batch_size,
        image_shape=data.image_shape,
        missing=data.has_missing,
        kind="grey",
    )


def noise_of(dequantise: str, data: Loader, net: Callable[[int], nn.Module]) -> nn.Module | None:
    """q(u | x) of the noise within cells; None where it is uniform.

    Args:
        dequantise: a word.
        data: whose levels they are.
        net: width -> the net from x to features.
    """
    return LogisticNoise(net(data.x_dim), data.x_dim) if dequantise == "variational" else None
