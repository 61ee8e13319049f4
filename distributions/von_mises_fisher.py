"""Directions: the von Mises-Fisher distribution on the sphere of any dimension."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn
from torch.nn import functional as F

from dlvm.distributions.bessel import log_bessel
from dlvm.distributions.cosines import draw_below
from dlvm.distributions.scale import positive
from dlvm.nets import out_features
from dlvm.nets.arguments import whole


class VonMisesFisher(dist.TorchDistribution):
    """Unit vectors of two dimensions or more around a direction.

        p(z) = exp(kappa loc . z) / (L(kappa) area),   |z| = 1
        L(kappa) = Gamma(d / 2) (2 / kappa)^(d/2 - 1) I_{d/2 - 1}(kappa),   area = 2 pi^(d/2) / Gamma(d / 2)

    The density is over the area of the sphere, and draws carry the gradient. In three dimensions L = sinh(kappa) /
    kappa, and w = loc . z has a closed-form inverse distribution function; in others w is drawn by Wood's rejection and
    its gradient is implicit, see ``draw_below``. The direction across is noise projected on the tangent plane. For
    uniform directions use ``SphericalUniform``, to which the KL is known in closed form.

    Args:
        loc: unit vectors, shape (*batch, d).
        concentration: kappa > 0, shape (*batch).

    Raises:
        ValueError: ``loc`` is not two numbers or more of unit length, or ``concentration`` is not positive.
        TypeError: one of the two is no tensor of floats.

    References:
        Simulation of the von Mises Fisher distribution, Wood, 1994.
        Hyperspherical Variational Auto-Encoders, Davidson, Falorsi, De Cao, Kipf, Tomczak, 2018, arXiv:1804.00891.

    Example:
        >>> VonMisesFisher(torch.tensor([0.0, 0.0, 1.0]), torch.tensor(5.0)).rsample((4,)).shape
        torch.Size([4, 3])
    """

    arg_constraints = {"loc": constraints.sphere, "concentration": constraints.positive}
    support = constraints.sphere
    has_rsample = True

    def __init__(self, loc: Tensor, concentration: Tensor, validate_args: bool | None = None):
        for name, value in (("loc", loc), ("concentration", concentration)):
            if not isinstance(value, Tensor) or not value.is_floating_point():
                got = value.dtype if isinstance(value, Tensor) else type(value).__name__
                raise TypeError(f"{name} must be a tensor of floats, got {got}; write torch.as_tensor({name}).float()")
        if not loc.dim() or loc.shape[-1] < 2:
            raise ValueError(
                f"loc must have shape (*batch, d) with d of at least 2, got {tuple(loc.shape)}; one direction is a "
                "vector of unit length"
            )
        try:
            shape = torch.broadcast_shapes(loc.shape[:-1], concentration.shape)
        except RuntimeError as error:
            raise ValueError(
                f"concentration of shape {tuple(concentration.shape)} must broadcast with the batch shape of loc, "
                f"{tuple(loc.shape[:-1])}; give one number for each direction"
            ) from error
        self.loc, self.concentration = loc.expand(*shape, -1), concentration.expand(shape)
        super().__init__(shape, loc.shape[-1:], validate_args=validate_args)

    @property
    def dim(self) -> int:
        """d, how many numbers a direction has."""
        return self.event_shape[0]

    def expand(self, batch_shape: Sequence[int], _instance: VonMisesFisher | None = None) -> VonMisesFisher:
        new, shape = self._get_checked_instance(VonMisesFisher, _instance), torch.Size(batch_shape)
        new.loc, new.concentration = self.loc.expand(*shape, -1), self.concentration.expand(shape)
        super(VonMisesFisher, new).__init__(shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        shape, kappa = self._extended_shape(torch.Size(sample_shape)), self.concentration
        below = self._below(shape[:-1], kappa)  # 1 - w
        across = torch.randn(shape, dtype=kappa.dtype, device=kappa.device)
        across = F.normalize(across - (across * self.loc).sum(-1, keepdim=True) * self.loc, dim=-1)
        length = (below * (2 - below)).clamp_min(torch.finfo(kappa.dtype).tiny).sqrt()
        return F.normalize((1 - below).unsqueeze(-1) * self.loc + length.unsqueeze(-1) * across, dim=-1)

    def _below(self, shape: torch.Size, kappa: Tensor) -> Tensor:
        if self.dim != 3:
            return draw_below(kappa.expand(shape), self.dim)
        u = torch.rand(shape, dtype=kappa.dtype, device=kappa.device)
        return -torch.log1p(u * torch.expm1(-2 * kappa)) / kappa

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        kappa = self.concentration
        if self.dim == 3:
            log_scale = kappa.log() - torch.log(-torch.expm1(-2 * kappa)) - math.log(2 * math.pi)
        else:
            log_scale = (-log_bessel(self.dim / 2 - 1, kappa)[0] - log_area(self.dim)).to(kappa.dtype)
        apart = (value - self.loc).square().sum(-1)  # 2 - 2 loc . z, without its loss of digits
        return log_scale - 0.5 * kappa * apart

    @property
    def mean(self) -> Tensor:
        kappa = self.concentration
        if self.dim != 3:
            return log_bessel(self.dim / 2 - 1, kappa)[1].to(kappa.dtype).unsqueeze(-1) * self.loc
        k = kappa.square()
        series = kappa / 3 * (1 - k / 15 * (1 - k * 2 / 21 * (1 - k / 10)))  # coth(kappa) and 1 / kappa cancel near 0
        length = torch.where(kappa < 0.3, series, 1 / torch.tanh(kappa) - 1 / kappa)
        return length.unsqueeze(-1) * self.loc


def log_area(dim: int) -> float:
    """log of the area of the sphere of unit vectors of so many numbers.

    Example:
        >>> round(log_area(3), 6) == round(math.log(4 * math.pi), 6)
        True
    """
    return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)


class VonMisesFisherDirection(nn.Module):
    """A direction given a context.

        q(z | h) = vMF(z; m(h) / |m(h)|, kappa(h))

    Args:
        net: contexts -> features, with ``out_features``; m and the raw concentration are linear in them.
        dim: how many numbers a direction has, at least 2.

    Raises:
        ValueError: ``dim`` is below 2.

    References:
        Hyperspherical Variational Auto-Encoders, Davidson, Falorsi, De Cao, Kipf, Tomczak, 2018, arXiv:1804.00891.

    Example:
        >>> VonMisesFisherDirection(nn.Linear(4, 8))(torch.zeros(5, 4)).event_shape
        torch.Size([3])
    """

    def __init__(self, net: nn.Module, dim: int = 3):
        super().__init__()
        whole(dim=dim)
        if dim < 2:
            raise ValueError(f"dim must be at least 2, got {dim}: of one number there are two directions, no density")
        self.net, self.dim, self.head = net, dim, nn.Linear(out_features(net), dim + 1)

    def forward(self, *context: Tensor) -> dist.Distribution:
        direction, raw = self.head(self.net(*context)).split([self.dim, 1], dim=-1)
        return VonMisesFisher(F.normalize(direction, dim=-1), positive(raw.squeeze(-1)))
