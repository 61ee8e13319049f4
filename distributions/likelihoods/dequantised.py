"""Grey levels under a density: each level is a cell, and noise says where in it the number lies."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from dlvm.distributions.likelihoods.greys import GreyLevel, checked_levels
from dlvm.distributions.likelihoods.missing import OrMissing, PartlyObserved
from dlvm.distributions.supports import inner
from dlvm.nets import out_features
from dlvm.nets.arguments import count

FARTHEST, WIDEST = 8.0, math.log(2.0)  # location, and log of the scale, of a logistic variable before its sigmoid


class Cells:
    """One draw of a number y and its two parts: the cell k that it lies in, and the place u within the cell.

        y = (k + u) / levels,   p(u, k) = p(y) / levels^D

    Args:
        density: of y, in numbers from 0 to 1.
        levels: how many cells there are.
    """

    def __init__(self, density: TorchDistribution, levels: int = 256):
        self.density, self.levels = density, checked_levels(levels)
        self.drawn: tuple[Tensor, Tensor] | None = None  # the last u, and the cells that came with it

    @property
    def rank(self) -> int:
        return len(self.density.event_shape)

    def over(self, shape: torch.Size) -> TorchDistribution:
        """The density with this batch shape."""
        return self.density if self.density.batch_shape == shape else self.density.expand(shape)

    @torch.no_grad()
    def draw(self, density: TorchDistribution, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """u and k; what lies beyond 0 and 1 is put at the ends."""
        y = self.levels * density.sample(shape)
        cell = y.floor().clamp(0, self.levels - 1)
        return (y - cell).clamp(0, 1), cell

    def joined(self, cell: Tensor, u: Tensor) -> Tensor:
        """y, strictly between 0 and 1."""
        tiny = torch.finfo(u.dtype).eps
        return ((cell + u) / self.levels).clamp(tiny / self.levels, 1 - tiny)


class CellNoise(TorchDistribution):
    """Where numbers lie within their cells: the first factor of p(u, k), by convention uniform.

        p(u) = 1,   0 <= u <= 1

    ``CellLevels`` has all the rest of p(u, k), so that the product is right and neither factor is normalised by itself.
    Draws are of the true u, the fraction of a draw of y.

    Args:
        cells: whose noise it is.
        batch_shape: that of the density unless told.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, cells: Cells, batch_shape: Sequence[int] | None = None):
        self.cells = cells
        shape = cells.density.batch_shape if batch_shape is None else torch.Size(batch_shape)
        super().__init__(shape, cells.density.event_shape, validate_args=False)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.unit_interval, self.cells.rank)

    def expand(self, batch_shape: Sequence[int], _instance: CellNoise | None = None) -> CellNoise:
        return CellNoise(self.cells, batch_shape)

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        self.cells.drawn = self.cells.draw(self.cells.over(self.batch_shape), torch.Size(sample_shape))
        return self.cells.drawn[0]

    def log_prob(self, value: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(value.shape[: value.dim() - self.cells.rank], self.batch_shape)
        return value.new_zeros(shape)


class CellLevels(TorchDistribution):
    """Grey levels k / (levels - 1) whose density is known at one place of each cell: the second factor of p(u, k).

        log p(x | u) = log p(y) - D log levels,   y = (k + u) / levels,   x = k / (levels - 1)

    Its mean over u, uniform, is the probability of x: the density's integral over the cell. Numbers that are missing
    (NaN, under a density made by ``Missing``) count nothing.

    Args:
        cells: whose levels they are.
        u: where in the cells, shape (*batch, *event).
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, cells: Cells, u: Tensor):
        self.cells, self.u = cells, u
        shape = torch.broadcast_shapes(u.shape[: u.dim() - cells.rank], cells.density.batch_shape)
        self.density = cells.over(shape)
        super().__init__(shape, cells.density.event_shape, validate_args=False)

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        level: constraints.Constraint = GreyLevel(self.cells.levels)
        if isinstance(inner(self.density), PartlyObserved):
            level = OrMissing(level)
        return constraints.independent(level, self.cells.rank)

    @property
    def mean(self) -> Tensor:
        """Of y, in the numbers of x, whatever u is."""
        return self._grey(self.density.mean * self.cells.levels - 0.5)

    @property
    def variance(self) -> Tensor:
        return self.density.variance * (self.cells.levels / (self.cells.levels - 1)) ** 2

    def expand(self, batch_shape: Sequence[int], _instance: CellLevels | None = None) -> CellLevels:
        return CellLevels(self.cells, self.u.expand(*batch_shape, *self.event_shape))

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        """x of the very draw that u is of; where u comes from elsewhere, of a fresh one."""
        drawn = self.cells.drawn
        if not sample_shape and drawn is not None and drawn[0] is self.u:
            return self._grey(drawn[1])
        return self._grey(self.cells.draw(self.density, torch.Size(sample_shape))[1])

    def log_prob(self, value: Tensor) -> Tensor:
        cell = (value * (self.cells.levels - 1)).round()
        there = (~cell.isnan()).to(self.u.dtype).flatten(cell.dim() - self.cells.rank).sum(-1)
        return self.density.log_prob(self.cells.joined(cell, self.u)) - there * math.log(self.cells.levels)

    def _grey(self, number: Tensor) -> Tensor:
        return number.clamp(0, self.cells.levels - 1) / (self.cells.levels - 1)


class LogisticNoise(nn.Module):
    """Noise for cells that depends on a context, a logistic variable before its sigmoid; it starts as the uniform.

        u_d = sigmoid(loc_d + scale_d v_d),   v_d ~ Logistic(0, 1)

    Locations are held between -8 and 8, scales between e^-5 and 2: farther out u is rounded to 0 or 1 in single
    precision, and its density with it.

    Args:
        net: contexts -> features, with ``out_features``.
        dim: numbers of a datum.

    Raises:
        ValueError: ``dim`` is below 1.
        TypeError: the net has no ``out_features``.

    Example:
        >>> noise = LogisticNoise(nn.Linear(2, 8), 3)(torch.zeros(5, 2))
        >>> noise.log_prob(torch.full((5, 3), 0.2)).detach()
        tensor([0., 0., 0., 0., 0.])
    """

    def __init__(self, net: nn.Module, dim: int):
        super().__init__()
        count(dim=dim)
        self.net, self.head = net, nn.Linear(out_features(net), 2 * dim)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, *context: Tensor) -> dist.Distribution:
        loc, log_scale = self.head(self.net(*context)).chunk(2, dim=-1)
        loc = FARTHEST * torch.tanh(loc / FARTHEST)
        log_scale = torch.where(log_scale > 0, WIDEST * torch.tanh(log_scale / WIDEST), 5 * torch.tanh(log_scale / 5))
        one = torch.ones_like(loc)
        standard = dist.Uniform(0 * one, one, validate_args=False).to_event(1)
        transforms = [dist.transforms.SigmoidTransform().inv, dist.transforms.AffineTransform(loc, log_scale.exp(), 1)]
        return dist.TransformedDistribution(standard, [*transforms, dist.transforms.SigmoidTransform()])
