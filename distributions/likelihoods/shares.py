"""Numbers between 0 and 1: continuous Bernoulli, which takes the ends, and beta, which does not."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from dlvm.distributions.likelihoods.rates import positive_columns
from dlvm.distributions.likelihoods.saddle_point import LOG_TWO_PI, deviance, stirling_error
from dlvm.distributions.scale import positive
from dlvm.nets.arguments import count, module
from dlvm.nets.mlp import last_layer


class TiltedUniform(TorchDistribution):
    """The continuous Bernoulli: a uniform variable on [0, 1] tilted by a logit.

        p(x) = exp(l x) l / (exp(l) - 1)

    Scored to full precision at any logit, 0 among them, where it is the uniform.

    Args:
        logits: shape (*batch).
        validate_args: as in every distribution.

    References:
        The Continuous Bernoulli: Fixing a Pervasive Error in Variational Autoencoders, Loaiza-Ganem, Cunningham, 2019,
            arXiv:1907.06845.

    Example:
        >>> TiltedUniform(torch.tensor([0.0, 1e4])).log_prob(torch.tensor([0.5, 1.0]))
        tensor([0.0000, 9.2103])
    """

    arg_constraints = {"logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, logits: Tensor, validate_args: bool | None = None):
        self.logits = logits
        super().__init__(logits.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """1 / (1 - exp(-l)) - 1 / l."""
        size = self.logits.abs()
        far = size.clamp_min(0.1)
        above = torch.where(size < 0.1, 0.5 + size / 12 - size**3 / 720, -1 / torch.expm1(-far) - 1 / far)
        return torch.where(self.logits > 0, above, 1 - above)

    def expand(self, batch_shape: Sequence[int], _instance: TiltedUniform | None = None) -> TiltedUniform:
        new = self._get_checked_instance(TiltedUniform, _instance)
        new.logits = self.logits.expand(torch.Size(batch_shape))
        super(TiltedUniform, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        shape = self._extended_shape(torch.Size(sample_shape))
        uniform = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        size = self.logits.abs()
        far = size.clamp_min(1e-3)
        low = torch.where(size < 1e-3, uniform, -torch.log1p(uniform * torch.expm1(-far)) / far)
        return torch.where(self.logits > 0, 1 - low, low).clamp(0, 1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        close = self.logits.abs() < 0.1
        near, far = torch.where(close, self.logits, 0), torch.where(close, 1, self.logits)
        y = near.square()
        series = (value - 0.5) * near - y * (1 / 24 - y * (1 / 2880 - y / 181440))  # no |l|, which has no slope at 0
        tilt = torch.where(far > 0, value - 1, value) * far
        return torch.where(close, series, tilt - (-torch.expm1(-far.abs())).log() + far.abs().log())


class ContinuousBernoulli(nn.Module):
    """Independent numbers from 0 to 1, both included, given a context; for grey levels that stay grey.

        p(x | z) = prod_d exp(l_d x_d) l_d / (exp(l_d) - 1),   l = net(z)

    Args:
        net: contexts -> logits, shape (*batch, x_dim).

    Raises:
        TypeError: ``net`` is no module.

    References:
        The Continuous Bernoulli: Fixing a Pervasive Error in Variational Autoencoders, Loaiza-Ganem, Cunningham, 2019,
            arXiv:1907.06845.

    Example:
        >>> ContinuousBernoulli(nn.Linear(2, 784))(torch.zeros(5, 2)).event_shape
        torch.Size([784])
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        module(net=net)
        self.net = net

    def forward(self, *context: Tensor) -> dist.Distribution:
        return TiltedUniform(self.net(*context)).to_event(1)


class _BetweenZeroAndOne(constraints.Constraint):
    """Numbers between 0 and 1, neither included: the ends have a density of 0 or of infinity."""

    def check(self, value: Tensor) -> Tensor:
        return (value > 0) & (value < 1)


class PreciseBeta(TorchDistribution):
    """The beta distribution by two positive shapes, scored to full precision however large they are.

        p(x) = x^(a - 1) (1 - x)^(b - 1) Gamma(a + b) / (Gamma(a) Gamma(b))

    Args:
        a, b: positive, shape (*batch).
        validate_args: as in every distribution.

    Example:
        >>> PreciseBeta(torch.tensor(1e6), torch.tensor(1e6)).log_prob(torch.tensor(0.5))
        tensor(7.0285)
    """

    arg_constraints = {"a": constraints.positive, "b": constraints.positive}
    support = _BetweenZeroAndOne()
    has_rsample = True

    def __init__(self, a: Tensor, b: Tensor, validate_args: bool | None = None):
        self.a, self.b = torch.broadcast_tensors(a, b)
        super().__init__(self.a.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.a / (self.a + self.b)

    @property
    def variance(self) -> Tensor:
        return self.mean * (1 - self.mean) / (1 + self.a + self.b)

    def expand(self, batch_shape: Sequence[int], _instance: PreciseBeta | None = None) -> PreciseBeta:
        new = self._get_checked_instance(PreciseBeta, _instance)
        shape = torch.Size(batch_shape)
        new.a, new.b = self.a.expand(shape), self.b.expand(shape)
        super(PreciseBeta, new).__init__(shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        drawn = dist.Beta(self.a, self.b, validate_args=False).rsample(torch.Size(sample_shape))
        tiny = torch.finfo(drawn.dtype).eps
        return drawn.clamp(tiny, 1 - tiny)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        a, b, x = torch.broadcast_tensors(self.a, self.b, value)
        n = a + b
        apart = a * (1 - x) - b * x
        found = stirling_error(n) - stirling_error(a) - stirling_error(b)
        found = found - deviance(a, n * x, apart) - deviance(b, n * (1 - x), -apart)
        return found + 0.5 * (a.log() + b.log() - n.log() - LOG_TWO_PI) - x.log() - torch.log1p(-x)


class Beta(nn.Module):
    """Independent numbers between 0 and 1, neither included, given a context.

        p(x | z) = prod_d Beta(x_d; m_d c_d, (1 - m_d) c_d),
        m = sigmoid(W net(z) + b),   c_d = c0_d exp(v_d . net(z) + u_d)

    m is the mean and m (1 - m) / (1 + c) the variance; the exponent is held between -10 and 10, see ``positive``, and
    so is the logit of m.

    Args:
        net: contexts -> features, with ``out_features``.
        dim: number of columns.
        concentration: shape (dim,), positive: what c is a multiple of; 1 unless told.

    Raises:
        ValueError: ``dim`` is below 1, ``concentration`` has another shape, or an element that is not positive.
        TypeError: the net has no ``out_features``, or ``concentration`` is no tensor.

    Example:
        >>> Beta(nn.Linear(2, 8), 3)(torch.zeros(5, 2)).event_shape
        torch.Size([3])
    """

    concentration: Tensor

    def __init__(self, net: nn.Module, dim: int, concentration: Tensor | None = None):
        super().__init__()
        count(dim=dim)
        self.net, self.head = net, last_layer(net, dim, 2)
        start = torch.ones(dim) if concentration is None else concentration
        self.register_buffer("concentration", positive_columns("concentration", start, dim).clone())

    def forward(self, *context: Tensor) -> dist.Distribution:
        raw_mean, raw = self.head(self.net(*context)).chunk(2, dim=-1)
        size, odds = self.concentration * positive(raw), positive(raw_mean)
        return PreciseBeta(size * odds / (1 + odds), size / (1 + odds)).to_event(1)
