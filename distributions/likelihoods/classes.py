"""Columns of classes, each with as many as it has."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import logsigmoid, pad

from dlvm.distributions.scale import positive
from dlvm.nets import out_features
from dlvm.nets.arguments import widths
from dlvm.nets.mlp import last_layer


class ClassColumns(TorchDistribution):
    """One class 0, 1, ... for each column, of as many as the column has.

        p(x_d) = softmax(logits_d)_{x_d},   x_d < sizes_d

    Args:
        logits: shape (*batch, dim, most), -inf behind a column's last class.
        sizes: shape (dim,), how many classes each column has.
        validate_args: as in every distribution.

    Example:
        >>> ClassColumns(torch.zeros(5, 3, 4), torch.tensor([4, 4, 4])).log_prob(torch.ones(3)).shape
        torch.Size([5, 3])
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, logits: Tensor, sizes: Tensor, validate_args: bool | None = None):
        self.logits, self.sizes = logits, sizes
        super().__init__(logits.shape[:-1], validate_args=validate_args)
        if self._validate_args and logits.isnan().any():
            raise ValueError("logits must be numbers, got NaN; look at the parameters of the net that gives them")

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        return constraints.integer_interval(0, self.sizes - 1)

    @property
    def probs(self) -> Tensor:
        """Shape (*batch, dim, most)."""
        return self.logits.softmax(-1)

    @property
    def mean(self) -> Tensor:
        """Mean of the classes' numbers, which says something where they are in order."""
        return (self.probs * self._numbers()).sum(-1)

    @property
    def variance(self) -> Tensor:
        return (self.probs * (self._numbers() - self.mean.unsqueeze(-1)).square()).sum(-1)

    def _numbers(self) -> Tensor:
        return torch.arange(self.logits.shape[-1], device=self.logits.device, dtype=self.logits.dtype)

    def expand(self, batch_shape: Sequence[int], _instance: ClassColumns | None = None) -> ClassColumns:
        new = self._get_checked_instance(ClassColumns, _instance)
        new.logits, new.sizes = self.logits.expand(*batch_shape, -1), self.sizes
        super(ClassColumns, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        drawn = dist.Categorical(logits=self.logits).sample(torch.Size(sample_shape))
        return drawn.to(self.logits.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return picked(self.logits, value)


def picked(logits: Tensor, number: Tensor) -> Tensor:
    """log softmax(logits)_number, the shapes of the two broadcast."""
    log_p = logits.log_softmax(-1)
    shape = torch.broadcast_shapes(log_p.shape[:-1], number.shape)
    index = number.long().expand(shape).unsqueeze(-1)
    return log_p.expand(*shape, -1).gather(-1, index).squeeze(-1)


def _check_sizes(sizes: Sequence[int], least: int = 1) -> None:
    widths(sizes=sizes)
    if not len(sizes):
        raise ValueError("sizes must hold the number of classes of at least one column, got none; pass (3, 2)")
    if min(sizes) < least:
        raise ValueError(f"sizes must be at least {least} each, got {tuple(sizes)}; leave such columns out")


class CategoricalColumns(nn.Module):
    """Independent columns of classes given a context, each with as many as it has.

        p(x | z) = prod_d softmax(W_d net(z) + b_d)_{x_d},   x_d in 0, ..., sizes_d - 1

    Args:
        net: contexts -> features, with ``out_features``.
        sizes: how many classes each column has.

    Raises:
        ValueError: ``sizes`` is empty, or a column has no class.
        TypeError: the net has no ``out_features``, or ``sizes`` is no sequence of integers.

    Example:
        >>> CategoricalColumns(nn.Linear(2, 8), (2, 5, 3))(torch.zeros(5, 2)).event_shape
        torch.Size([3])
    """

    sizes: Tensor
    places: Tensor

    def __init__(self, net: nn.Module, sizes: Sequence[int]):
        super().__init__()
        _check_sizes(sizes)
        self.net, self.head = net, nn.Linear(out_features(net), sum(sizes))
        most = max(sizes)
        self.register_buffer("sizes", torch.tensor(tuple(sizes)))
        places = [d * most + k for d, size in enumerate(sizes) for k in range(size)]
        self.register_buffer("places", torch.tensor(places))
        self.most = most

    def forward(self, *context: Tensor) -> dist.Distribution:
        found = self.head(self.net(*context))
        dim = len(self.sizes)
        logits = found.new_full((*found.shape[:-1], dim * self.most), -torch.inf).index_copy(-1, self.places, found)
        return ClassColumns(logits.unflatten(-1, (dim, self.most)), self.sizes).to_event(1)


class OrdinalColumns(nn.Module):
    """Independent columns of classes in order, as grades are, given a context: one number decides, between cuts.

        P(x_d <= k | z) = sigmoid(cut_dk - f_d(z)),   f = W net(z) + b,   cut_d0 < cut_d1 < ...

    One number of the net for a column, however many classes it has; the cuts are learned, the same for all data.

    Args:
        net: contexts -> features, with ``out_features``.
        sizes: how many classes each column has, at least 2.

    Raises:
        ValueError: ``sizes`` is empty, or a column has fewer than 2 classes.
        TypeError: the net has no ``out_features``, or ``sizes`` is no sequence of integers.

    References:
        Regression Models for Ordinal Data, McCullagh, 1980.

    Example:
        >>> OrdinalColumns(nn.Linear(2, 8), (2, 5, 3))(torch.zeros(5, 2)).event_shape
        torch.Size([3])
    """

    sizes: Tensor

    def __init__(self, net: nn.Module, sizes: Sequence[int]):
        super().__init__()
        _check_sizes(sizes, 2)
        self.net, self.head = net, last_layer(net, len(sizes))
        self.register_buffer("sizes", torch.tensor(tuple(sizes)))
        self.first = nn.Parameter(torch.zeros(len(sizes)))
        self.steps = nn.Parameter(torch.zeros(len(sizes), max(sizes) - 2))
        self.start_at([torch.ones(size) / size for size in sizes])

    def start_at(self, shares: Sequence[Tensor]) -> None:
        """Puts the cuts where, at f = 0, the classes of each column have these shares, all positive."""
        with torch.no_grad():
            for d, share in enumerate(shares):
                cuts = torch.logit((share.cumsum(0) / share.sum())[:-1], 1e-6)
                self.first[d] = cuts[0]
                self.steps[d, : len(cuts) - 1] = cuts.diff().clamp_min(1e-3).log()

    def forward(self, *context: Tensor) -> dist.Distribution:
        f = self.head(self.net(*context)).unsqueeze(-1)
        steps = positive(self.steps)
        cuts = torch.cat([self.first.unsqueeze(-1), self.first.unsqueeze(-1) + steps.cumsum(-1)], -1)
        number = torch.arange(cuts.shape[-1] + 1, device=cuts.device)
        last = self.sizes.unsqueeze(-1) - 1
        below, above = cuts - f, f - cuts  # of the cut over class k: logits of P(x <= k) and of P(x > k)
        lower = pad(logsigmoid(above), (1, 0))
        upper = torch.where(number < last, pad(logsigmoid(below), (0, 1)), 0)
        between = (number > 0) & (number < last)
        inner = torch.where(between, (-torch.expm1(-pad(steps, (1, 1), value=1.0))).log(), 0)
        logits = torch.where(number <= last, lower + upper + inner, -torch.inf)
        return ClassColumns(logits, self.sizes).to_event(1)
