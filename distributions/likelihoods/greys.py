"""Grey levels k / (levels - 1) between 0 and 1: one probability for each, or a rounded logistic variable."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from dlvm.distributions.likelihoods.classes import picked
from dlvm.distributions.likelihoods.location_scale import LocationScale, Units
from dlvm.nets.arguments import count
from dlvm.nets.mlp import last_layer


class GreyLevel(constraints.Constraint):
    """0, 1 / (levels - 1), ..., 1, up to rounding."""

    is_discrete = True

    def __init__(self, levels: int):
        self.levels = levels
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        number = value * (self.levels - 1)
        return ((number - number.round()).abs() < 1e-3) & (value >= 0) & (value <= 1)

    def __repr__(self) -> str:
        return f"GreyLevel({self.levels})"


class GreyCategories(TorchDistribution):
    """A grey level of any distribution over the levels.

        p(x = k / (levels - 1)) = softmax(logits)_k

    Args:
        logits: shape (*batch, levels).
        validate_args: as in every distribution.

    Example:
        >>> GreyCategories(torch.zeros(5, 256)).log_prob(torch.tensor(51 / 255)).exp()[0] * 256
        tensor(1.)
    """

    arg_constraints = {"logits": constraints.real_vector}

    def __init__(self, logits: Tensor, validate_args: bool | None = None):
        self.logits = logits
        super().__init__(logits.shape[:-1], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        return GreyLevel(self.logits.shape[-1])

    @property
    def mean(self) -> Tensor:
        return self.logits.softmax(-1) @ _greys(self.logits.shape[-1], self.logits)

    @property
    def variance(self) -> Tensor:
        return self.logits.softmax(-1) @ _greys(self.logits.shape[-1], self.logits).square() - self.mean.square()

    def expand(self, batch_shape: Sequence[int], _instance: GreyCategories | None = None) -> GreyCategories:
        new = self._get_checked_instance(GreyCategories, _instance)
        new.logits = self.logits.expand(*batch_shape, -1)
        super(GreyCategories, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        drawn = dist.Categorical(logits=self.logits).sample(torch.Size(sample_shape))
        return _greys(self.logits.shape[-1], self.logits)[drawn]

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return picked(self.logits, (value * (self.logits.shape[-1] - 1)).round())


def _greys(levels: int, like: Tensor) -> Tensor:
    return torch.arange(levels, device=like.device, dtype=like.dtype) / (levels - 1)


class RoundedLogistic(TorchDistribution):
    """A logistic variable rounded to the nearest grey level, what lies beyond 0 and 1 to these.

        p(x) = sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)),
        a, b = (x -+ w / 2 - loc) / scale,   w = 1 / (levels - 1),   a = -inf at x = 0 and b = inf at x = 1

    The product loses nothing, wherever the levels lie in the tails.

    Args:
        loc, scale: real, and positive; shape (*batch).
        levels: how many, 256 for 8 bits.
        validate_args: as in every distribution.

    Example:
        >>> p = RoundedLogistic(torch.tensor(0.3), torch.tensor(0.1)).log_prob(torch.arange(256) / 255).exp()
        >>> round(p.sum().item(), 4)
        1.0
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}

    def __init__(self, loc: Tensor, scale: Tensor, levels: int = 256, validate_args: bool | None = None):
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        return GreyLevel(self.levels)

    @property
    def mean(self) -> Tensor:
        """Level by level, w sum_k P(x > k w)."""
        width, total = 1 / (self.levels - 1), torch.zeros_like(self.loc)
        for k in range(self.levels - 1):
            total = total + torch.sigmoid((self.loc - (k + 0.5) * width) / self.scale)
        return width * total

    def expand(self, batch_shape: Sequence[int], _instance: RoundedLogistic | None = None) -> RoundedLogistic:
        new = self._get_checked_instance(RoundedLogistic, _instance)
        shape = torch.Size(batch_shape)
        new.loc, new.scale, new.levels = self.loc.expand(shape), self.scale.expand(shape), self.levels
        super(RoundedLogistic, new).__init__(shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        uniform = torch.rand(
            self._extended_shape(torch.Size(sample_shape)), dtype=self.loc.dtype, device=self.loc.device
        )
        tiny = torch.finfo(uniform.dtype).eps
        drawn = self.loc + self.scale * torch.logit(uniform, tiny)
        return (drawn.clamp(0, 1) * (self.levels - 1)).round() / (self.levels - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        width = 1 / (self.levels - 1)
        below, above = ((value + s * width - self.loc) / self.scale for s in (-0.5, 0.5))
        first, last = value < 0.5 * width, value > 1 - 0.5 * width
        lower = torch.where(first, 0, logsigmoid(-below))
        upper = torch.where(last, 0, logsigmoid(above))
        # The share of the interval would be 0 in float32 under scales beyond e^16, which no head reaches.
        inner = torch.where(first | last, 0, (-torch.expm1(-width / self.scale)).log())
        return lower + upper + inner


class GreyLevels(nn.Module):
    """Independent grey levels given a context, with a probability for each level: 256-way for 8 bits.

        p(x | z) = prod_d softmax(W_d net(z) + b_d)_{k_d},   x_d = k_d / (levels - 1)

    Args:
        net: contexts -> features, with ``out_features``.
        dim: number of columns.
        levels: how many there are, at least 2.

    Raises:
        ValueError: ``dim`` is below 1, or ``levels`` below 2.
        TypeError: the net has no ``out_features``.

    Example:
        >>> GreyLevels(nn.Linear(2, 8), 3)(torch.zeros(5, 2)).event_shape
        torch.Size([3])
    """

    def __init__(self, net: nn.Module, dim: int, levels: int = 256):
        super().__init__()
        count(dim=dim)
        self.levels = checked_levels(levels)
        self.net, self.head = net, last_layer(net, dim, levels, last=True)

    def forward(self, *context: Tensor) -> dist.Distribution:
        logits = self.head(self.net(*context)).unflatten(-1, (-1, self.levels))
        return GreyCategories(logits).to_event(1)


class DiscretisedLogistic(LocationScale):
    """Independent grey levels given a context, each a logistic variable rounded to the nearest level.

        p(x | z) = prod_d P(the level nearest to y_d is x_d),   y_d ~ Logistic(loc_d(z), scale_d(z))

    Two numbers for a pixel where ``GreyLevels`` takes 256, and neighbouring levels are alike.

    Args:
        net: contexts -> features, with ``out_features``.
        dim: number of columns.
        levels: how many there are, at least 2.
        units: of the data; loc 0 and scale 1 unless told.
        scale: () -> a scale that does not depend on the context, in these units, as for ``Normal``.

    Raises:
        ValueError: ``dim`` is below 1, ``levels`` below 2, or the units or the scale are of another number of columns.
        TypeError: the net has no ``out_features``, or ``scale`` is no module.

    References:
        Improving Variational Inference with Inverse Autoregressive Flow, Kingma et al., 2016, arXiv:1606.04934.

    Example:
        >>> DiscretisedLogistic(nn.Linear(2, 8), 3)(torch.zeros(5, 2)).event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        net: nn.Module,
        dim: int,
        levels: int = 256,
        units: Units | None = None,
        scale: nn.Module | None = None,
    ):
        super().__init__(net, dim, units, scale)
        self.levels = checked_levels(levels)

    def forward(self, *context: Tensor) -> dist.Distribution:
        return RoundedLogistic(*self.location_and_scale(*context), self.levels).to_event(1)


def checked_levels(levels: int) -> int:
    """``levels``, if it is an integer of at least 2."""
    count(levels=levels)
    if levels < 2:
        raise ValueError(f"levels must be at least 2, got {levels}; 256 for 8 bits")
    return levels
