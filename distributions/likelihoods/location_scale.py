"""Real numbers around a location, in the units of the data: Gaussian, Laplace, Student-t."""

from __future__ import annotations

import pyro.distributions as dist
from torch import Tensor, nn

from dlvm.distributions.likelihoods.rates import positive_columns
from dlvm.distributions.observation_noise import LearnedScale, normal_of
from dlvm.distributions.scale import positive
from dlvm.distributions.student_t import StudentT as ScoredStudentT
from dlvm.nets.arguments import count, module
from dlvm.nets.mlp import last_layer


class Units(nn.Module):
    """Where the columns of a table lie and how wide they are, so that a net may think in numbers near 0.

    The data stay as they are: a likelihood in these units is a density of the data's own numbers, and log p(x) needs no
    Jacobian.

    Args:
        loc: shape (dim,), such as the mean of each column.
        scale: shape (dim,), positive, such as its standard deviation.

    Raises:
        ValueError: the two are no vectors of one length, ``loc`` is not finite, or ``scale`` not positive and finite.
        TypeError: one is no tensor.

    Example:
        >>> import torch
        >>> units = Units(torch.tensor([1000.0, 0.0]), torch.tensor([50.0, 1e-3]))
        >>> units(torch.ones(2), torch.ones(2))
        (tensor([1.0500e+03, 1.0000e-03]), tensor([5.0000e+01, 1.0000e-03]))
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor, scale: Tensor):
        super().__init__()
        if not isinstance(loc, Tensor):
            raise TypeError(f"loc must be a tensor of shape (dim,), got {type(loc).__name__}; pass x.mean(0)")
        if loc.dim() != 1 or not bool(loc.isfinite().all()):
            got = f"shape {tuple(loc.shape)}" if loc.dim() != 1 else f"{int((~loc.isfinite()).sum())} that are not"
            raise ValueError(f"loc must be a vector of finite numbers, got {got}; pass the mean of each column")
        self.register_buffer("loc", loc.detach().clone())
        self.register_buffer("scale", positive_columns("scale", scale, len(loc)).to(loc).clone())

    def forward(self, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Both in the units of the data, from numbers near 0 and 1, shape (*batch, dim)."""
        return self.loc + self.scale * loc, self.scale * scale


def check_units(units: Units | None, dim: int) -> None:
    """Refuses units of another number of columns, with ValueError."""
    if units is not None and (not isinstance(units, Units) or len(units.loc) != dim):
        got = f"units of {len(units.loc)}" if isinstance(units, Units) else type(units).__name__
        raise ValueError(f"units must be Units of dim={dim} columns, got {got}; pass Units(x.mean(0), x.std(0))")


class LocationScale(nn.Module):
    """From features to a location and a scale for each column.

        loc_d = a_d + s_d (w_d . net(z) + b_d),   scale_d = s_d exp(v_d . net(z) + c_d)

    with a and s of ``units``; the exponent is held between -10 and 10, see ``positive``.

    Args:
        net: contexts -> features, with ``out_features``.
        dim: number of columns.
        units: of the data; loc 0 and scale 1 unless told.
        scale: () -> a scale that does not depend on the context, shape (1,) or (dim,), in these units.
    """

    def __init__(self, net: nn.Module, dim: int, units: Units | None = None, scale: nn.Module | None = None):
        super().__init__()
        count(dim=dim)
        if scale is not None:
            module(scale=scale)
        check_units(units, dim)
        self.net, self.units, self.scale = net, units, scale
        self.head = last_layer(net, dim, 1 if scale is not None else 2)

    def location_and_scale(self, *context: Tensor) -> tuple[Tensor, Tensor]:
        """Each of shape (*batch, dim), in the units of the data."""
        found = self.head(self.net(*context))
        if self.scale is None:
            loc, raw = found.chunk(2, dim=-1)
            scale = positive(raw)
        else:
            loc, scale = found, self.scale()
            if scale.shape[-1:] not in ((1,), loc.shape[-1:]):
                raise ValueError(
                    f"scale has shape {tuple(scale.shape)} where there are {loc.shape[-1]} columns; make it with dim=1 "
                    f"or dim={loc.shape[-1]}"
                )
        return (loc, scale) if self.units is None else self.units(loc, scale)


class Normal(LocationScale):
    """Independent Gaussians given a context, in the units of the data.

        p(x | z) = prod_d N(x_d; loc_d(z), scale_d^2)

    Without units and with a scale for each datum it is ``DiagonalNormal``.

    Args:
        net: contexts -> features, with ``out_features``.
        dim: number of columns.
        units: of the data; loc 0 and scale 1 unless told.
        scale: () -> the scale in these units, as ``LearnedScale()``, ``FixedScale(1.0)`` or ``OptimalScale()``; unless
            told, it is another for each datum and column, as per pixel.

    Raises:
        ValueError: ``dim`` is below 1, or the units or the scale are of another number of columns.
        TypeError: the net has no ``out_features``, or ``scale`` is no module.

    Example:
        >>> import torch
        >>> Normal(nn.Linear(2, 8), 3, Units(torch.zeros(3), torch.full((3,), 1e4)))(torch.zeros(5, 2)).event_shape
        torch.Size([3])
    """

    def forward(self, *context: Tensor) -> dist.Distribution:
        return normal_of(*self.location_and_scale(*context), self.scale).to_event(1)


class Laplace(LocationScale):
    """Independent Laplace variables given a context: the location is a median, and outliers cost their distance.

        p(x | z) = prod_d exp(-|x_d - loc_d(z)| / scale_d) / (2 scale_d)

    Args:
        net: contexts -> features, with ``out_features``.
        dim: number of columns.
        units: of the data; loc 0 and scale 1 unless told.
        scale: as for ``Normal``.

    Raises:
        ValueError: ``dim`` is below 1, or the units or the scale are of another number of columns.
        TypeError: the net has no ``out_features``, or ``scale`` is no module.

    Example:
        >>> import torch
        >>> Laplace(nn.Linear(2, 8), 3)(torch.zeros(5, 2)).event_shape
        torch.Size([3])
    """

    def forward(self, *context: Tensor) -> dist.Distribution:
        return dist.Laplace(*self.location_and_scale(*context)).to_event(1)


class StudentT(LocationScale):
    """Independent Student-t variables given a context, for columns with outliers.

        p(x | z) = prod_d t(x_d; 1 + df_d, loc_d(z), scale_d)

    The degrees of freedom belong to the column and are more than 1, so that there is always a mean; from 3 on there is
    a variance. For a posterior, whose degrees depend on the context, see ``DiagonalStudentT``.

    Args:
        net: contexts -> features, with ``out_features``.
        dim: number of columns.
        units: of the data; loc 0 and scale 1 unless told.
        scale: as for ``Normal``.
        df: () -> degrees of freedom above the first, shape (1,) or (dim,): ``FixedScale(4.0)`` for 5; learned for each
            column, from 5, unless told.

    Raises:
        ValueError: ``dim`` is below 1, or the units or the scale are of another number of columns.
        TypeError: the net has no ``out_features``, or ``scale`` or ``df`` is no module.

    Example:
        >>> import torch
        >>> StudentT(nn.Linear(2, 8), 3)(torch.zeros(5, 2)).event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        net: nn.Module,
        dim: int,
        units: Units | None = None,
        scale: nn.Module | None = None,
        df: nn.Module | None = None,
    ):
        super().__init__(net, dim, units, scale)
        self.df = LearnedScale(4.0, dim=dim) if df is None else df
        module(df=self.df)

    def forward(self, *context: Tensor) -> dist.Distribution:
        return ScoredStudentT(1 + self.df(), *self.location_and_scale(*context)).to_event(1)
