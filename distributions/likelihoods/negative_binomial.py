"""Counts that vary more than Poisson's."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from dlvm.distributions.likelihoods.rates import Rates
from dlvm.distributions.likelihoods.saddle_point import LOG_TWO_PI, deviance, stirling_error
from dlvm.distributions.observation_noise import LearnedScale
from dlvm.nets.arguments import module


class NegativeBinomialCounts(TorchDistribution):
    """The negative binomial distribution by its mean and its dispersion, scored to full precision at any count.

        p(x) = Gamma(x + r) / (Gamma(r) x!) (r / (r + rate))^r (rate / (r + rate))^x,   r = 1 / dispersion,
        E x = rate,   Var x = rate + dispersion rate^2

    It is Poisson's as the dispersion goes to 0.

    Args:
        rate: positive.
        dispersion: positive.
        validate_args: as in every distribution.

    Example:
        >>> NegativeBinomialCounts(torch.tensor(1e6), torch.tensor(1e-9)).log_prob(torch.tensor(1e6))
        tensor(-7.8272)
    """

    arg_constraints = {"rate": constraints.positive, "dispersion": constraints.positive}
    support = constraints.nonnegative_integer

    def __init__(self, rate: Tensor, dispersion: Tensor, validate_args: bool | None = None):
        self.rate, self.dispersion = broadcast_all(rate, dispersion)
        super().__init__(self.rate.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.rate

    @property
    def variance(self) -> Tensor:
        return self.rate * (1 + self.dispersion * self.rate)

    def expand(
        self, batch_shape: Sequence[int], _instance: NegativeBinomialCounts | None = None
    ) -> NegativeBinomialCounts:
        new = self._get_checked_instance(NegativeBinomialCounts, _instance)
        new.rate, new.dispersion = (
            self.rate.expand(torch.Size(batch_shape)),
            self.dispersion.expand(torch.Size(batch_shape)),
        )
        super(NegativeBinomialCounts, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        r = self.dispersion.reciprocal().expand(self._extended_shape(torch.Size(sample_shape)))
        return torch.poisson(torch._standard_gamma(r) * (self.dispersion * self.rate))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        value = value.to(self.rate.dtype)
        rate, r, value = torch.broadcast_tensors(self.rate, self.dispersion.reciprocal(), value)
        x = torch.where(value > 0, value, 1)
        share = r / (r + rate)
        n, apart = r + x, share * (x - rate)
        some = stirling_error(n) - stirling_error(r) - stirling_error(x)
        some = some - deviance(r, r * (n / (r + rate)), -apart) - deviance(x, n * (rate / (r + rate)), apart)
        some = some - 0.5 * (LOG_TWO_PI + x.log() + torch.log1p(x / r))
        return torch.where(value > 0, some, -r * torch.log1p(rate / r))


class NegativeBinomial(nn.Module):
    """Independent counts given a context that vary more than Poisson's.

        p(x | z) = prod_d NB(x_d; rate_d, dispersion_d),   Var x_d = rate_d + dispersion_d rate_d^2

    The rates are those of ``Poisson``; a dispersion belongs to the column and not to the datum.

    Args:
        net: contexts -> features, with ``out_features``.
        dim: number of columns.
        mean: shape (dim,), positive: what the rates are multiples of, the mean of each column; 1 unless told.
        dispersion: () -> the dispersion, shape (1,) or (dim,); learned for each column, from 1, unless told.

    Raises:
        ValueError: ``dim`` is below 1, ``mean`` has another shape, or an element that is not positive and finite.
        TypeError: the net has no ``out_features``, ``mean`` is no tensor, or ``dispersion`` no module.

    References:
        Deep generative modeling for single-cell transcriptomics, Lopez, Regier, Cole, Jordan, Yosef, 2018.

    Example:
        >>> NegativeBinomial(nn.Linear(2, 8), 3)(torch.zeros(5, 2), total=torch.full((5,), 1e4)).event_shape
        torch.Size([3])
    """

    def __init__(self, net: nn.Module, dim: int, mean: Tensor | None = None, dispersion: nn.Module | None = None):
        super().__init__()
        self.rates = Rates(net, dim, mean)
        self.dispersion = LearnedScale(dim=dim) if dispersion is None else dispersion
        module(dispersion=self.dispersion)

    def forward(self, *context: Tensor, total: Tensor | None = None) -> dist.Distribution:
        """p(x | z); ``total``, shape (*batch,), positive, scales a datum's rates."""
        return NegativeBinomialCounts(self.rates(*context, total=total), self.dispersion()).to_event(1)
