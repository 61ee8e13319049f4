"""What one random layer of many needs: times that are spread over a batch, and a sum that is known on average alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro.distributions import TorchDistribution, Unit
from torch import Tensor
from torch.distributions import constraints


class SpreadUniform(TorchDistribution):
    """Uniform on [0, 1), where all that is drawn at once is spread evenly: a sum over it has less noise.

        t_i = (u + pi_i / n) mod 1,   u ~ U(0, 1),   pi a random order of 0, ..., n - 1

    Each t_i alone is uniform, and so is what ``log_prob`` says of it.

    Args:
        validate_args: as in every distribution.

    References:
        Variational Diffusion Models, Kingma, Salimans, Poole, Ho, 2021, arXiv:2107.00630, appendix I.

    Example:
        >>> t = SpreadUniform().expand([100]).sample()
        >>> torch.equal((10 * t).long().bincount(), torch.full((10,), 10))
        True
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.unit_interval
    has_rsample = True  # there is nothing to be differentiated

    def __init__(self, validate_args: bool | None = None):
        super().__init__(validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: SpreadUniform | None = None) -> SpreadUniform:
        new = self._get_checked_instance(SpreadUniform, _instance)
        super(SpreadUniform, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        shape = self._extended_shape(torch.Size(sample_shape))
        number = shape.numel()
        return ((torch.rand(()) + torch.randperm(number) / number) % 1.0).reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return torch.zeros_like(value)


class EstimatedLog(Unit):
    """A factor whose logarithm is an unbiased estimate of what it stands for, as one layer's KL times their number.

        E log_factor = sum_t log_factor_t

    The mean of log-weights with such a factor is a bound, and the logarithm of a mean of weights is none: only what is
    linear in the log-weights, as ``ELBO``, takes it, and all else refuses it.

    Args:
        log_factor: shape (*batch), nats.
    """
