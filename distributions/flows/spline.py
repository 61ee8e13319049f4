"""Monotonic rational-quadratic splines, and the autoregressive step that makes a flow of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlvm.distributions.flows.coupling import Elementwise, elementwise
from dlvm.nets import MADE
from dlvm.nets.arguments import count, real, whole

SMALLEST = 1e-3
ZERO_IS_ONE = math.log(math.expm1(1.0 - SMALLEST))


class RationalQuadratic:
    """An increasing spline on [-bound, bound] between ``bins`` + 1 knots, and the identity outside.

    In a bin of width w, height h and slopes d_0, d_1 at its ends, with s = h / w and t in [0, 1] the place inside it,

        z = z_0 + h (s t^2 + d_0 t (1 - t)) / (s + (d_0 + d_1 - 2 s) t (1 - t))

    Widths and heights are at least a thousandth of the range, slopes at least 0.001; zero parameters give the identity.

    Args:
        bins: number of bins.
        bound: where the spline ends.

    Raises:
        ValueError: ``bins`` or ``bound`` is out of range.

    References:
        Neural Spline Flows, Durkan, Bekasov, Murray, Papamakarios, 2019, arXiv:1906.04032.

    Example:
        >>> spline = RationalQuadratic(bins=4)
        >>> z, log_slope = spline(torch.tensor([0.5, 9.0]), torch.zeros(2, spline.size))
        >>> torch.allclose(z, torch.tensor([0.5, 9.0])), torch.allclose(log_slope, torch.zeros(2), atol=1e-6)
        (True, True)
    """

    def __init__(self, bins: int = 8, bound: float = 4.0):
        whole(bins=bins)
        real(bound=bound)
        if not 2 <= bins <= 500:
            raise ValueError(f"bins must be between 2 and 500, got {bins}; 8 is usual")
        if not 1e-6 <= bound <= 1e6:
            raise ValueError(
                f"bound must be positive and finite, got {bound}; 4 covers standard noise, 1e-6 and 1e6 are the limits"
            )
        self.bins, self.bound, self.size = bins, bound, 3 * bins - 1

    def __call__(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """z and log dz/dy, both of the shape of y; parameters have shape (*y.shape, size)."""
        inside = y.clamp(-self.bound, self.bound)
        left, width, low, height, d0, d1 = self._bin(inside, parameters, 0)
        t, s = (inside - left) / width, height / width
        both, below = t * (1 - t), s + (d0 + d1 - 2 * s) * t * (1 - t)
        z = low + height * (s * t.square() + d0 * both) / below
        slope = s.square() * (d1 * t.square() + 2 * s * both + d0 * (1 - t).square()) / below.square()
        kept = y.abs() <= self.bound
        return torch.where(kept, z, y), torch.where(kept, slope.log(), 0.0)

    def inverse(self, z: Tensor, parameters: Tensor) -> Tensor:
        """y, the root of a quadratic in t."""
        inside = z.clamp(-self.bound, self.bound)
        left, width, low, height, d0, d1 = self._bin(inside, parameters, 2)
        s, up = height / width, inside - low
        bend = up * (d0 + d1 - 2 * s)
        a, b, c = height * (s - d0) + bend, height * d0 - bend, -s * up
        t = 2 * c / (-b - (b.square() - 4 * a * c).clamp_min(0.0).sqrt())
        return torch.where(z.abs() <= self.bound, left + width * t, z)

    def _bin(self, value: Tensor, parameters: Tensor, edge: int) -> tuple[Tensor, ...]:
        """Left end, width, low end, height and both slopes of the bin of each value; ``edge`` 0 or 2: which ends."""
        widths, heights, slopes = parameters.split([self.bins, self.bins, self.bins - 1], dim=-1)
        widths, heights = self._lengths(widths), self._lengths(heights)
        slopes = F.pad(SMALLEST + F.softplus(slopes + ZERO_IS_ONE), (1, 1), value=1.0)
        table = (self._ends(widths), widths, self._ends(heights), heights, slopes[..., :-1], slopes[..., 1:])
        index = (value.unsqueeze(-1) >= table[edge][..., 1:]).sum(-1, keepdim=True)
        return tuple(row.gather(-1, index).squeeze(-1) for row in table)

    def _lengths(self, raw: Tensor) -> Tensor:
        return 2 * self.bound * (SMALLEST + (1 - SMALLEST * self.bins) * raw.softmax(-1))

    def _ends(self, lengths: Tensor) -> Tensor:
        return F.pad(lengths[..., :-1].cumsum(-1), (1, 0)) - self.bound


class Autoregressive(nn.Module):
    """One step in which each dimension is mapped given the noise of those before it and the context.

        z_j = f(y_j; made(y_{<j}, h)_j),   log |dz/dy| = sum_j log f'

    Forward is one call of the network, so a guide draws in parallel and scores its own draws for free. A value from
    elsewhere is inverted in dim calls.

    Args:
        dim: number of dimensions.
        context: width of the context h.
        reverse: from the last dimension to the first.
        bijection: f; unless told, ``RationalQuadratic()``; ``Affine()`` works as well.
        hidden: widths of the MADE's hidden layers, each at least ``dim``.
        activation: makes the nonlinearity of the MADE.

    References:
        Neural Spline Flows, Durkan, Bekasov, Murray, Papamakarios, 2019, arXiv:1906.04032.

    Example:
        >>> z, log_det = Autoregressive(3, 4)(torch.zeros(5, 3), torch.zeros(5, 4))
        >>> z.shape, log_det.shape
        (torch.Size([5, 3]), torch.Size([5]))
    """

    def __init__(
        self,
        dim: int,
        context: int,
        reverse: bool = False,
        bijection: Elementwise | None = None,
        hidden: Sequence[int] = (128,),
        activation: Callable[[], nn.Module] = nn.ELU,
    ):
        super().__init__()
        count(dim=dim, context=context)
        self.bijection = RationalQuadratic() if bijection is None else elementwise(bijection)
        self.made = MADE(dim, context, hidden, self.bijection.size, reverse, activation)
        last = [self.made.layers[-1]] if hidden else [self.made.layers[0], self.made.context]
        with torch.no_grad():
            for parameter in (p for layer in last if layer is not None for p in layer.parameters()):
                parameter.mul_(0.01)

    def forward(self, y: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        z, log_slopes = self.bijection(y, self._conditions(y, h))
        return z, log_slopes.sum(-1)

    def inverse(self, z: Tensor, h: Tensor) -> Tensor:
        y = torch.zeros_like(z)
        for degree in range(1, self.made.dim + 1):
            y = torch.where(self.made.order == degree, self.bijection.inverse(z, self._conditions(y, h)), y)
        return y

    def _conditions(self, y: Tensor, h: Tensor) -> Tensor:
        return torch.stack(self.made(y, h), dim=-1)
