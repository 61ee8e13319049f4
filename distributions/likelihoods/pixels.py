"""Grey levels of images whose parameters a convolutional net gives pixel by pixel."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from dlvm.distributions.likelihoods.greys import RoundedLogistic, checked_levels
from dlvm.distributions.likelihoods.location_scale import Units
from dlvm.distributions.scale import positive
from dlvm.nets import out_features


class PixelLogistic(nn.Module):
    """Grey levels under a rounded logistic variable, of which the net itself gives location and scale.

        p(x_d = k / (levels - 1) | z) = P(|v_d - k / (levels - 1)| < w / 2),   v_d ~ Logistic(loc_d(z), scale_d(z))

    ``DiscretisedLogistic`` puts a linear layer between a net's features and the columns; here a net that has a place
    for every pixel, as ``Readout(..., numbers=2)``, gives each its two numbers.

    Args:
        net: contexts -> shape (*batch, 2 dim), with ``out_features``: all locations, then the logarithms of all scales.
        levels: how many there are, at least 2.
        units: of the data, where the net's zeros are; loc 0.5 and scale 0.25 for every pixel unless told.

    Raises:
        ValueError: the net gives an odd number of numbers, ``levels`` is below 2, or units are of another number of
            columns.
        TypeError: the net has no ``out_features``.

    References:
        Improved Variational Inference with Inverse Autoregressive Flow, Kingma et al., 2016, arXiv:1606.04934.

    Example:
        >>> PixelLogistic(nn.Linear(2, 6))(torch.zeros(5, 2)).event_shape
        torch.Size([3])
    """

    def __init__(self, net: nn.Module, levels: int = 256, units: Units | None = None):
        super().__init__()
        width = out_features(net)
        if width % 2:
            raise ValueError(f"net must give two numbers for each column, got {width} in all; pass Readout(numbers=2)")
        dim = width // 2
        units = Units(torch.full((dim,), 0.5), torch.full((dim,), 0.25)) if units is None else units
        if not isinstance(units, Units) or len(units.loc) != dim:
            got = f"units of {len(units.loc)}" if isinstance(units, Units) else type(units).__name__
            raise ValueError(f"units must be Units of {dim} columns, got {got}; pass Units(x.mean(0), x.std(0))")
        self.net, self.levels, self.units = net, checked_levels(levels), units

    def forward(self, *context: Tensor) -> dist.Distribution:
        loc, raw = self.net(*context).chunk(2, dim=-1)
        loc, scale = self.units(loc, positive(raw))
        return RoundedLogistic(loc, scale, self.levels).to_event(1)
