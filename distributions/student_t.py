"""Student-t variables: heavier tails than a Gaussian's."""

from __future__ import annotations

import math

import pyro.distributions as dist
from torch import Tensor, nn

from distributions.scale import positive
from nets import out_features
from nets.numbers import count, real


class DiagonalStudentT(nn.Module):
    """Independent Student-t variables given a context.

        q(z | h) = prod_j t(z_j; df_j(h), loc_j(h), scale_j(h)),  df_j > 2

    More than two degrees of freedom keep the variance finite, and with it the KL to a Gaussian prior. At the start df
    is near ``start``: 32 is close to a plain DiagonalNormal.

    Args:
        net: contexts -> features, with ``out_features``; all parameters are linear in them before their limits.
        dim: number of dimensions.
        start: degrees of freedom where their raw parameter is 0.

    Raises:
        ValueError: ``start`` is not above 2 and finite.

    Example:
        >>> import torch
        >>> DiagonalStudentT(nn.Linear(4, 8), 3)(torch.zeros(5, 4)).event_shape
        torch.Size([3])
    """

    def __init__(self, net: nn.Module, dim: int, start: float = 32.0):
        super().__init__()
        count(dim=dim)
        real(start=start)
        if not 2 < start < math.inf:
            raise ValueError(f"start must be above 2 and finite, got {start}; for no heavy tails use DiagonalNormal")
        self.net, self.head, self.start = net, nn.Linear(out_features(net), 3 * dim), start

    def forward(self, *context: Tensor) -> dist.Distribution:
        loc, raw_scale, raw_df = self.head(self.net(*context)).chunk(3, dim=-1)
        df = 2 + (self.start - 2) * positive(raw_df)
        return dist.StudentT(df, loc, positive(raw_scale)).to_event(1)
