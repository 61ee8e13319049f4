"""Student-t variables: heavier tails than a Gaussian's."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from dlvm.distributions.normal import HALF_LOG_TWO_PI
from dlvm.distributions.scale import positive
from dlvm.nets import out_features
from dlvm.nets.arguments import count, real


class StudentT(dist.StudentT):
    """Student's t distribution, scored to full precision at any number of degrees of freedom.

        log t(z; df, loc, scale) = -(df + 1) / 2 log(1 + y^2 / df) - log scale - log(2 pi) / 2 - r(df / 2),
        y = (z - loc) / scale,   r(x) = log Gamma(x) - log Gamma(x + 1/2) + log(x) / 2

    The two log Gamma are of size x log x and cancel: beyond 16, r is taken from its expansion in 1 / x.

    Example:
        >>> StudentT(torch.tensor(1e6), 0.0, 1.0).log_prob(torch.tensor(0.0))
        tensor(-0.9189)
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        y = (value - self.loc) / self.scale
        kernel = -0.5 * (self.df + 1) * torch.log1p(y.square() / self.df)
        return kernel - self.scale.log() - HALF_LOG_TWO_PI - _gamma_ratio(0.5 * self.df)


def _gamma_ratio(x: Tensor) -> Tensor:
    """log Gamma(x) - log Gamma(x + 1/2) + log(x) / 2."""
    expansion = (1 - (1 - 0.3 / x.square()) / (24 * x.square())) / (8 * x)
    return torch.where(x > 16, expansion, torch.lgamma(x) - torch.lgamma(x + 0.5) + 0.5 * x.log())


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
        ValueError: ``start`` is not above 2, or above a million.

    Example:
        >>> import torch
        >>> DiagonalStudentT(nn.Linear(4, 8), 3)(torch.zeros(5, 4)).event_shape
        torch.Size([3])
    """

    def __init__(self, net: nn.Module, dim: int, start: float = 32.0):
        super().__init__()
        count(dim=dim)
        real(start=start)
        if not 2 < start <= 1e6:
            raise ValueError(
                f"start must be above 2 and finite, got {start}; 1e6 is the limit, and for no heavy tails use "
                "DiagonalNormal"
            )
        self.net, self.head, self.start = net, nn.Linear(out_features(net), 3 * dim), start

    def forward(self, *context: Tensor) -> dist.Distribution:
        loc, raw_scale, raw_df = self.head(self.net(*context)).chunk(3, dim=-1)
        df = 2 + (self.start - 2) * positive(raw_df)
        return StudentT(df, loc, positive(raw_scale)).to_event(1)
