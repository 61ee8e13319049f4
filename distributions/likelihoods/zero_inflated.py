"""Counts with more zeros than their distribution has."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from dlvm.distributions.likelihoods.negative_binomial import NegativeBinomialCounts
from dlvm.distributions.likelihoods.rates import Rates
from dlvm.distributions.observation_noise import LearnedScale
from dlvm.nets.arguments import module
from dlvm.nets.mlp import last_layer


class ZeroInflatedCounts(TorchDistribution):
    """Zero with one probability, and else a count.

        p(x) = g 1[x = 0] + (1 - g) base(x),   g = sigmoid(gate)

    Args:
        base: distribution of single counts.
        gate: logit of the zeros that are not counts, of the base's batch shape.
        validate_args: as in every distribution.

    Example:
        >>> base = NegativeBinomialCounts(torch.ones(()), torch.ones(()))
        >>> ZeroInflatedCounts(base, torch.zeros(())).log_prob(torch.tensor(0.0)).exp()
        tensor(0.7500)
    """

    arg_constraints = {"gate": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(self, base: NegativeBinomialCounts, gate: Tensor, validate_args: bool | None = None):
        shape = torch.broadcast_shapes(base.batch_shape, gate.shape)
        self.base_dist, self.gate = base.expand(shape), gate.expand(shape)
        super().__init__(shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return torch.sigmoid(-self.gate) * self.base_dist.mean

    @property
    def variance(self) -> Tensor:
        kept = torch.sigmoid(-self.gate)
        return kept * (self.base_dist.variance + (1 - kept) * self.base_dist.mean.square())

    def expand(self, batch_shape: Sequence[int], _instance: ZeroInflatedCounts | None = None) -> ZeroInflatedCounts:
        new = self._get_checked_instance(ZeroInflatedCounts, _instance)
        new.base_dist, new.gate = (
            self.base_dist.expand(torch.Size(batch_shape)),
            self.gate.expand(torch.Size(batch_shape)),
        )
        super(ZeroInflatedCounts, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        counts = self.base_dist.sample(torch.Size(sample_shape))
        return counts * (torch.rand_like(counts) >= torch.sigmoid(self.gate))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        counted = logsigmoid(-self.gate) + self.base_dist.log_prob(value)
        return torch.where(value > 0, counted, torch.logaddexp(logsigmoid(self.gate), counted))


class ZeroInflatedNegativeBinomial(nn.Module):
    """Independent counts given a context, some of them zeros for another reason than being rare.

        p(x | z) = prod_d [ g_d 1[x_d = 0] + (1 - g_d) NB(x_d; rate_d, dispersion_d) ],   logit g_d = v_d . net(z) + c_d

    Rates and dispersions are those of ``NegativeBinomial``; the gates start near a tenth.

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
        >>> ZeroInflatedNegativeBinomial(nn.Linear(2, 8), 3)(torch.zeros(5, 2)).event_shape
        torch.Size([3])
    """

    def __init__(self, net: nn.Module, dim: int, mean: Tensor | None = None, dispersion: nn.Module | None = None):
        super().__init__()
        self.rates = Rates(net, dim, mean)
        self.gate = last_layer(net, dim)
        nn.init.constant_(self.gate.bias, -2.2)
        self.dispersion = LearnedScale(dim=dim) if dispersion is None else dispersion
        module(dispersion=self.dispersion)

    def forward(self, *context: Tensor, total: Tensor | None = None) -> dist.Distribution:
        """p(x | z); ``total``, shape (*batch,), positive, scales a datum's rates."""
        features = self.rates.net(*context)
        counts = NegativeBinomialCounts(self.rates.of(features, total), self.dispersion())
        return ZeroInflatedCounts(counts, self.gate(features)).to_event(1)
