"""Tables whose columns are of several kinds: one likelihood for the columns of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from dlvm.distributions.supports import inner
from dlvm.nets import out_features
from dlvm.nets.arguments import count, module


class EachColumn(constraints.Constraint):
    """Each column in the support of its own."""

    def __init__(self, parts: Sequence[tuple[constraints.Constraint, Tensor]], dim: int):
        self.parts, self.dim = parts, dim
        self.is_discrete = all(support.is_discrete for support, _ in parts)
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        found = torch.ones_like(value, dtype=torch.bool)
        for support, columns in self.parts:
            found[..., columns] = support.check(value[..., columns])
        return found

    def __repr__(self) -> str:
        return "; ".join(f"columns {columns.tolist()}: {support!r}" for support, columns in self.parts)


class MixedColumns(TorchDistribution):
    """Single numbers of several kinds side by side.

    Args:
        parts: (distribution of single numbers with batch shape (*batch, its columns), the columns' places).
        dim: how many columns there are in all.
        validate_args: as in every distribution.

    Example:
        >>> real, counts = dist.Normal(torch.zeros(2), 1.0), dist.Poisson(torch.ones(1))
        >>> parts = [(real, torch.tensor([0, 2])), (counts, torch.tensor([1]))]
        >>> MixedColumns(parts, 3).log_prob(torch.tensor([0.0, 2.0, 0.0]))
        tensor([-0.9189, -1.6931, -0.9189])
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, parts: Sequence[tuple[TorchDistribution, Tensor]], dim: int, validate_args: bool | None = None):
        self.parts, self.dim = list(parts), dim
        self.order = torch.cat([columns for _, columns in parts]).argsort()
        shape = torch.broadcast_shapes(*(part.batch_shape[:-1] for part, _ in parts))
        super().__init__(torch.Size([*shape, dim]), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        return EachColumn([(cast(constraints.Constraint, part.support), at) for part, at in self.parts], self.dim)

    @property
    def mean(self) -> Tensor:
        return self._joined([part.mean for part, _ in self.parts])

    @property
    def variance(self) -> Tensor:
        return self._joined([part.variance for part, _ in self.parts])

    def inside(self, value_of: Callable[[TorchDistribution], Tensor]) -> Tensor:
        """A number for each column, of what ``value_of`` gives for the parts."""
        return self._joined([value_of(part).expand(part.batch_shape) for part, _ in self.parts])

    def expand(self, batch_shape: Sequence[int], _instance: MixedColumns | None = None) -> MixedColumns:
        new = self._get_checked_instance(MixedColumns, _instance)
        *shape, dim = batch_shape
        new.parts = [(part.expand((*shape, part.batch_shape[-1])), columns) for part, columns in self.parts]
        new.dim, new.order = dim, self.order
        super(MixedColumns, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        return self._joined([part.sample(torch.Size(sample_shape)) for part, _ in self.parts])

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self._joined([part.log_prob(value[..., columns]) for part, columns in self.parts])

    def _joined(self, found: list[Tensor]) -> Tensor:
        shape = torch.broadcast_shapes(*(each.shape[:-1] for each in found))
        return torch.cat([each.expand(*shape, -1) for each in found], -1).index_select(-1, self.order)


class Product(nn.Module):
    """Several likelihoods for the columns of one table, on the features of one net.

        p(x | z) = prod_parts p(x_{columns of the part} | h),   h = net(z)

    Args:
        net: contexts -> features, with ``out_features`` = H.
        parts: likelihoods of independent columns, each made for features: ``Normal(Shared(H), 3)``.
        columns: for each of them, the places of its columns; together all of 0, 1, ..., once each.

    Raises:
        ValueError: there are no parts, not as many ``columns``, or a place is left out or taken twice; when called, a
            part has other than its number of columns, or its columns hang together.
        TypeError: the net has no ``out_features``, a part is no module, or ``columns`` no sequences of integers.

    References:
        Handling Incomplete Heterogeneous Data using VAEs, Nazabal, Olmos, Ghahramani, Valera, 2020, arXiv:1807.03653.

    Example:
        >>> from dlvm.distributions import CategoricalColumns, Normal
        >>> parts = [Normal(Shared(8), 2), CategoricalColumns(Shared(8), (3,))]
        >>> Product(nn.Linear(2, 8), parts, [(0, 2), (1,)])(torch.zeros(5, 2)).event_shape
        torch.Size([3])
    """

    places: Tensor

    def __init__(self, net: nn.Module, parts: Sequence[nn.Module], columns: Sequence[Sequence[int]]):
        super().__init__()
        out_features(net)
        if not isinstance(parts, Sequence | nn.ModuleList) or not len(parts):
            raise ValueError(f"parts must be a list of likelihoods, at least one, got {parts!r}; write [Normal(...)]")
        for i, part in enumerate(parts):
            module(**{f"parts[{i}]": part})
        _check_columns(columns, len(parts))
        self.net, self.parts = net, nn.ModuleList(parts)
        self.sizes = [len(each) for each in columns]
        places = torch.tensor([place for each in columns for place in each])
        self.register_buffer("places", places)

    def forward(self, *context: Tensor) -> dist.Distribution:
        features = self.net(*context)
        made = []
        for i, (part, columns) in enumerate(zip(self.parts, self.places.split(self.sizes), strict=True)):
            single = inner(part(features))
            if single.event_shape or single.batch_shape[-1:] != columns.shape:
                raise ValueError(
                    f"parts[{i}] makes a {type(single).__name__} of shape {tuple(single.batch_shape[-1:])}, event "
                    f"{tuple(single.event_shape)}, for {len(columns)} columns; take independent columns, one for each "
                    "of its places"
                )
            made.append((cast(TorchDistribution, single), columns))
        return MixedColumns(made, len(self.places)).to_event(1)


class Shared(nn.Module):
    """Stands for the net in a part of ``Product``, which gives the features that the parts share.

    Args:
        out_features: how many features.

    Raises:
        ValueError: it is below 1.

    Example:
        >>> Shared(8)(torch.zeros(5, 8)).shape
        torch.Size([5, 8])
    """

    def __init__(self, out_features: int):
        super().__init__()
        count(out_features=out_features)
        self.out_features = out_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def _check_columns(columns: Sequence[Sequence[int]], number: int) -> None:
    remedy = "write [(0, 2), (1,)] for two parts of three columns"
    if not isinstance(columns, Sequence) or isinstance(columns, str) or len(columns) != number:
        raise ValueError(f"columns must hold the places of each of {number} parts, got {columns!r}; {remedy}")
    places = []
    for each in columns:
        if not isinstance(each, Sequence) or isinstance(each, str) or not all(_is_place(place) for place in each):
            raise TypeError(f"columns must be sequences of integers from 0, got {each!r}; {remedy}")
        places += list(each)
    if sorted(places) != list(range(len(places))) or not all(map(len, columns)):
        raise ValueError(f"columns must hold each of 0, 1, ... once, and some for each part, got {columns!r}; {remedy}")


def _is_place(place: object) -> bool:
    return isinstance(place, int) and not isinstance(place, bool) and place >= 0
