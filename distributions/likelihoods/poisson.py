"""Counts whose variance is their mean."""

from __future__ import annotations

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from dlvm.distributions.likelihoods.rates import Rates
from dlvm.distributions.likelihoods.saddle_point import LOG_TWO_PI, deviance, stirling_error


class PoissonCounts(torch.distributions.Poisson, TorchDistributionMixin):
    """The Poisson distribution, scored to full precision at any count.

        log p(x) = -[x log(x / rate) + rate - x] - S(x) - log(2 pi x) / 2,   log p(0) = -rate,
        S(x) = log x! - [(x + 1/2) log x - x + log(2 pi) / 2]

    Example:
        >>> PoissonCounts(torch.tensor(1e6)).log_prob(torch.tensor(1e6))
        tensor(-7.8267)
    """

    arg_constraints = {"rate": torch.distributions.constraints.positive}

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        value = value.to(self.rate.dtype)
        rate, value = torch.broadcast_tensors(self.rate, value)
        x = torch.where(value > 0, value, 1)
        some = -deviance(x, rate, x - rate) - stirling_error(x) - 0.5 * (LOG_TWO_PI + x.log())
        return torch.where(value > 0, some, -rate)


class Poisson(nn.Module):
    """Independent counts given a context.

        p(x | z) = prod_d Poisson(x_d; rate_d),   rate_d = mean_d exp(w_d . net(z) + b_d)

    or, where the total of a datum is given, rate_d = total m_d exp(...) with m_d = mean_d / sum_d mean_d. The exponent
    is held between -10 and 10, see ``positive``, and b starts at 0: training starts at the rates of the columns.

    Args:
        net: contexts -> features, with ``out_features``.
        dim: number of columns.
        mean: shape (dim,), positive: what the rates are multiples of, the mean of each column; 1 unless told.

    Raises:
        ValueError: ``dim`` is below 1, ``mean`` has another shape, or an element that is not positive and finite.
        TypeError: the net has no ``out_features``, or ``mean`` is no tensor.

    Example:
        >>> Poisson(nn.Linear(2, 8), 3, torch.tensor([0.1, 5.0, 2e3]))(torch.zeros(5, 2)).event_shape
        torch.Size([3])
    """

    def __init__(self, net: nn.Module, dim: int, mean: Tensor | None = None):
        super().__init__()
        self.rates = Rates(net, dim, mean)

    def forward(self, *context: Tensor, total: Tensor | None = None) -> torch.distributions.Distribution:
        """p(x | z).

        Args:
            *context: of the net.
            total: shape (*batch,), positive; by which a datum's rates are scaled.
        """
        return PoissonCounts(self.rates(*context, total=total)).to_event(1)
