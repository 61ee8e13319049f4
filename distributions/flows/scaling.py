"""Elementwise pieces of flows on data: what brings columns to one scale, and bounded numbers to all real ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional as F

from dlvm.nets.arguments import count, is_count, real, whole


class ActNorm(nn.Module):
    """A scale and a shift for each feature, which ``initialise`` sets so that some data come out with mean 0 and sd 1.

        z = exp(log_scale) y + shift,   log |det dz/dy| = (places) sum_c log_scale_c

    Until it is initialised it is the identity; afterwards both are parameters as others are, and no batch enters.

    Args:
        features: number of features, or of channels.
        behind: dimensions of a datum behind its features: 0 for vectors, 2 for maps of shape (channels, height, width).

    Raises:
        ValueError: ``features`` is below 1 or ``behind`` below 0; when called, y has another number of features.
        TypeError: one is no integer.

    References:
        Glow: Generative Flow with Invertible 1x1 Convolutions, Kingma, Dhariwal, 2018, arXiv:1807.03039.

    Example:
        >>> norm, y = ActNorm(3), 5 + 2 * torch.randn(100, 3)
        >>> z = norm.initialise(y)
        >>> z.mean(0).abs().max() < 1e-5, (z.std(0, correction=0) - 1).abs().max() < 1e-4
        (tensor(True), tensor(True))
    """

    def __init__(self, features: int, behind: int = 0):
        super().__init__()
        count(features=features)
        whole(behind=behind)
        if behind < 0:
            raise ValueError(f"behind must be at least 0, got {behind}; pass 2 for maps, 0 for vectors")
        self.features, self.behind = features, behind
        self.log_scale, self.shift = (nn.Parameter(torch.zeros(features)) for _ in range(2))

    def forward(self, y: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """z, and log |det dz/dy| of shape (*batch,)."""
        places, batch = self._sizes(y)
        z = self._last(self.log_scale.exp()) * y + self._last(self.shift)
        return z, (places * self.log_scale.sum()).expand(batch)

    def inverse(self, z: Tensor, *context: Tensor) -> Tensor:
        """y."""
        self._sizes(z)
        return (z - self._last(self.shift)) * self._last((-self.log_scale).exp())

    @torch.no_grad()
    def initialise(self, y: Tensor, *context: Tensor) -> Tensor:
        """Sets scale and shift so that y comes out with mean 0 and standard deviation 1; a constant is only shifted."""
        self._sizes(y)
        columns = y.movedim(-1 - self.behind, -1).flatten(0, -2)
        if len(columns) < 2:
            raise ValueError(f"y must hold two data or more to start from, got shape {tuple(y.shape)}; pass a batch")
        variance, mean = torch.var_mean(columns, 0, correction=0)
        log_scale = torch.where(variance > 1e-12 * mean.square().clamp_min(1e-12), -variance.log() / 2, 0.0)
        self.log_scale.copy_(log_scale)
        self.shift.copy_(-mean * log_scale.exp())
        return self(y)[0]

    def _last(self, value: Tensor) -> Tensor:
        return value[(..., *(None,) * self.behind)]

    def _sizes(self, y: Tensor) -> tuple[int, torch.Size]:
        at = -1 - self.behind
        if not isinstance(y, Tensor) or y.dim() < -at or y.shape[at] != self.features:
            got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            places = ", height, width" if self.behind == 2 else ", ..." if self.behind else ""
            raise ValueError(
                f"y must be a tensor of shape (*batch, {self.features}{places}), got {got}; make the layer for this "
                "number of features"
            )
        return math.prod(y.shape[y.dim() + at + 1 :]), y.shape[:at]


class Standardise(nn.Module):
    """Data in units of their own: columns less a location, over a scale; neither is trained.

        z = (y - loc) / scale

    Args:
        loc: shape (dim,), such as the mean of each column.
        scale: shape (dim,), positive, such as its standard deviation.

    Raises:
        ValueError: they are no vectors of one length, or ``scale`` is not positive and finite.

    Example:
        >>> Standardise(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0]))(torch.tensor([3.0, 2.0]))
        (tensor([1., 0.]), tensor(-2.0794))
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor, scale: Tensor):
        super().__init__()
        for name, value in (("loc", loc), ("scale", scale)):
            if not isinstance(value, Tensor) or value.dim() != 1 or not value.isfinite().all():
                got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(f"{name} must be a vector of finite numbers, one for each column, got {got}")
        if loc.shape != scale.shape:
            raise ValueError(f"loc and scale must be of one length, got {len(loc)} and {len(scale)} columns")
        if not (scale > 0).all():
            raise ValueError("scale must be positive in all columns; pass 1 for one that is constant")
        self.register_buffer("loc", loc)
        self.register_buffer("scale", scale)

    def forward(self, y: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """z, and log |det dz/dy| of shape (*batch,)."""
        z = (y - self.loc) / self.scale
        return z, -self.scale.log().sum().expand(z.shape[:-1])

    def inverse(self, z: Tensor, *context: Tensor) -> Tensor:
        """y."""
        return self.loc + self.scale * z


class Logit(nn.Module):
    """Numbers between 0 and 1 to all real ones, kept off the ends by a margin.

        z = logit(margin + (1 - 2 margin) y)

    With a margin, z of large size come from numbers a little outside of [0, 1], which ``domain`` has as well.

    Args:
        margin: at least 0 and below 0.5; with 0, the ends themselves have no finite image.

    Raises:
        ValueError: ``margin`` lies elsewhere.
        TypeError: it is no number.

    References:
        Density estimation using Real NVP, Dinh, Sohl-Dickstein, Bengio, 2017, arXiv:1605.08803, section 4.1.

    Example:
        >>> z, log_det = Logit(0.05)(torch.tensor([0.0, 0.5, 1.0]))
        >>> z
        tensor([-2.9444,  0.0000,  2.9444])
    """

    def __init__(self, margin: float = 0.05):
        super().__init__()
        real(margin=margin)
        if not 0 <= margin < 0.5:
            raise ValueError(f"margin must be at least 0 and below 0.5, got {margin}; pass 0.05")
        self.margin = margin

    def extra_repr(self) -> str:
        return f"margin={self.margin}"

    @property
    def domain(self) -> constraints.Constraint:
        """Where y may lie."""
        low = -self.margin / (1 - 2 * self.margin)
        return constraints.independent(constraints.interval(low, 1 - low), 1)

    def forward(self, y: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """z, and log |det dz/dy| of shape (*batch,)."""
        width = 1 - 2 * self.margin
        z = torch.logit(self.margin + width * y)
        return z, (math.log(width) + F.softplus(z) + F.softplus(-z)).sum(-1)

    def inverse(self, z: Tensor, *context: Tensor) -> Tensor:
        """y."""
        return (torch.sigmoid(z) - self.margin) / (1 - 2 * self.margin)


class Reorder(nn.Module):
    """Numbers in another order: those at even places first, then those at odd ones, as NICE divides them.

    Args:
        dim: numbers in a datum.

    Example:
        >>> Reorder(5)(torch.arange(5.0))[0]
        tensor([0., 2., 4., 1., 3.])
    """

    order: Tensor
    back: Tensor

    def __init__(self, dim: int):
        super().__init__()
        if not is_count(dim):
            raise ValueError(f"dim must be a positive integer, got {dim!r}; pass the width of a datum")
        places = torch.arange(dim)
        self.register_buffer("order", torch.cat([places[::2], places[1::2]]), persistent=False)
        self.register_buffer("back", self.order.argsort(), persistent=False)

    def forward(self, y: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """z, and log |det dz/dy| = 0 of shape (*batch,)."""
        return y[..., self.order], y.new_zeros(y.shape[:-1])

    def inverse(self, z: Tensor, *context: Tensor) -> Tensor:
        """y."""
        return z[..., self.back]
