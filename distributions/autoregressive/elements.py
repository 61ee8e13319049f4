"""What a single variable of an autoregressive distribution is: a bit, a grey level, a token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pyro.distributions as dist
from torch import Tensor
from torch.distributions import constraints

from dlvm.distributions.bernoulli import IndependentBernoulli
from dlvm.distributions.likelihoods.greys import GreyCategories, GreyLevel, checked_levels
from dlvm.distributions.likelihoods.logistic_mixture import MixedLevels
from dlvm.distributions.scale import positive
from dlvm.nets.arguments import count


class Element(Protocol):
    """What a single variable is: how many numbers its distribution takes, which values it has, how it is made.

    Called with parameters of shape (*batch, dim, outputs), it returns the distribution of dim such variables that are
    independent given these, of batch shape (*batch) and event shape (dim,).
    """

    @property
    def outputs(self) -> int: ...
    @property
    def support(self) -> constraints.Constraint: ...
    def __call__(self, parameters: Tensor) -> dist.Distribution: ...


@dataclass(frozen=True)
class Bits:
    """0 or 1, of probability sigmoid(l).

    Example:
        >>> import torch
        >>> Bits()(torch.zeros(5, 3, 1)).log_prob(torch.ones(5, 3)).shape
        torch.Size([5])
    """

    outputs = 1
    support = constraints.boolean

    def __call__(self, parameters: Tensor) -> dist.Distribution:
        return IndependentBernoulli(parameters.squeeze(-1))


@dataclass(frozen=True)
class Greys:
    """One of the grey levels 0, 1 / (levels - 1), ..., 1, with a probability for each.

    Args:
        levels: how many there are, at least 2.

    Raises:
        ValueError: ``levels`` is below 2.

    Example:
        >>> import torch
        >>> Greys(4)(torch.zeros(5, 3, 4)).event_shape
        torch.Size([3])
    """

    levels: int = 256

    def __post_init__(self) -> None:
        checked_levels(self.levels)

    @property
    def outputs(self) -> int:
        return self.levels

    @property
    def support(self) -> constraints.Constraint:
        return GreyLevel(self.levels)

    def __call__(self, parameters: Tensor) -> dist.Distribution:
        return GreyCategories(parameters).to_event(1)


@dataclass(frozen=True)
class MixedGreys:
    """One of the grey levels 0, 1 / (levels - 1), ..., 1: a mixture of logistic variables, rounded to the nearest.

    Three numbers for a component where ``Greys`` takes one for a level, and neighbouring levels are alike.

    Args:
        components: of the mixture.
        levels: how many levels there are, at least 2.

    Raises:
        ValueError: ``components`` is below 1, or ``levels`` below 2.

    References:
        PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other Modifications,
            Salimans, Karpathy, Chen, Kingma, 2017, arXiv:1701.05517.

    Example:
        >>> import torch
        >>> MixedGreys(2, 16)(torch.zeros(5, 3, 6)).event_shape
        torch.Size([3])
    """

    components: int = 5
    levels: int = 256

    def __post_init__(self) -> None:
        count(components=self.components)
        checked_levels(self.levels)

    @property
    def outputs(self) -> int:
        return 3 * self.components

    @property
    def support(self) -> constraints.Constraint:
        return GreyLevel(self.levels)

    def __call__(self, parameters: Tensor) -> dist.Distribution:
        logits, loc, scale = parameters.unsqueeze(-2).chunk(3, -1)
        slope = logits[..., :0, :]  # of channels on channels, which the net conditions by itself
        loc, scale = 0.5 + 0.25 * loc, 0.25 * positive(scale)
        return MixedLevels(logits.squeeze(-2), loc, scale, slope, self.levels, alone=True).to_event(1)


@dataclass(frozen=True)
class Tokens:
    """One of the whole numbers 0, ..., levels - 1, with a probability for each.

    Args:
        levels: how many there are, at least 2.

    Raises:
        ValueError: ``levels`` is below 2.

    Example:
        >>> import torch
        >>> Tokens(27)(torch.zeros(5, 3, 27)).event_shape
        torch.Size([3])
    """

    levels: int

    def __post_init__(self) -> None:
        checked_levels(self.levels)

    @property
    def outputs(self) -> int:
        return self.levels

    @property
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(0, self.levels - 1)

    def __call__(self, parameters: Tensor) -> dist.Distribution:
        return dist.Categorical(logits=parameters).to_event(1)
