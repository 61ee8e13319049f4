"""Directions in three dimensions: the von Mises-Fisher distribution on the sphere."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn
from torch.nn import functional as F

from dlvm.distributions.scale import positive
from dlvm.nets import out_features
from dlvm.nets.arguments import whole


class VonMisesFisher(dist.TorchDistribution):
    """Unit vectors of three dimensions around a direction.

        p(z) = kappa / (2 pi (e^kappa - e^-kappa)) exp(kappa loc . z),   |z| = 1

    The density is over the area of the sphere, and draws carry the gradient: w = loc . z has a closed-form inverse
    distribution function, and the direction across is noise projected on the tangent plane. For uniform directions use
    ``pyro.distributions.ProjectedNormal(torch.zeros(3))``.

    Args:
        loc: unit vectors, shape (*batch, 3).
        concentration: kappa > 0, shape (*batch).

    Raises:
        ValueError: ``loc`` is not three numbers of unit length, or ``concentration`` is not positive.
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
        if loc.shape[-1:] != (3,):
            raise ValueError(
                f"loc must have shape (*batch, 3), got {tuple(loc.shape)}; only directions in 3-D are known"
            )
        try:
            shape = torch.broadcast_shapes(loc.shape[:-1], concentration.shape)
        except RuntimeError as error:
            raise ValueError(
                f"concentration of shape {tuple(concentration.shape)} must broadcast with the batch shape of loc, "
                f"{tuple(loc.shape[:-1])}; give one number for each direction"
            ) from error
        self.loc, self.concentration = loc.expand(*shape, 3), concentration.expand(shape)
        super().__init__(shape, loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: VonMisesFisher | None = None) -> VonMisesFisher:
        new, shape = self._get_checked_instance(VonMisesFisher, _instance), torch.Size(batch_shape)
        new.loc, new.concentration = self.loc.expand(*shape, 3), self.concentration.expand(shape)
        super(VonMisesFisher, new).__init__(shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        shape, kappa = self._extended_shape(torch.Size(sample_shape)), self.concentration
        u = torch.rand(shape[:-1], dtype=kappa.dtype, device=kappa.device)
        below = -torch.log1p(u * torch.expm1(-2 * kappa)) / kappa  # 1 - w
        across = torch.randn(shape, dtype=kappa.dtype, device=kappa.device)
        across = F.normalize(across - (across * self.loc).sum(-1, keepdim=True) * self.loc, dim=-1)
        length = (below * (2 - below)).clamp_min(torch.finfo(kappa.dtype).tiny).sqrt()
        return F.normalize((1 - below).unsqueeze(-1) * self.loc + length.unsqueeze(-1) * across, dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        kappa = self.concentration
        log_scale = kappa.log() - torch.log(-torch.expm1(-2 * kappa)) - math.log(2 * math.pi)
        apart = (value - self.loc).square().sum(-1)  # 2 - 2 loc . z, without its loss of digits
        return log_scale - 0.5 * kappa * apart

    @property
    def mean(self) -> Tensor:
        kappa = self.concentration
        k = kappa.square()
        series = kappa / 3 * (1 - k / 15 * (1 - k * 2 / 21 * (1 - k / 10)))  # coth(kappa) and 1 / kappa cancel near 0
        length = torch.where(kappa < 0.3, series, 1 / torch.tanh(kappa) - 1 / kappa)
        return length.unsqueeze(-1) * self.loc


class VonMisesFisherDirection(nn.Module):
    """A direction in three dimensions given a context.

        q(z | h) = vMF(z; m(h) / |m(h)|, kappa(h))

    Args:
        net: contexts -> features, with ``out_features``; m and the raw concentration are linear in them.
        dim: number of dimensions, 3.

    Raises:
        ValueError: ``dim`` is not 3.

    References:
        Hyperspherical Variational Auto-Encoders, Davidson, Falorsi, De Cao, Kipf, Tomczak, 2018, arXiv:1804.00891.

    Example:
        >>> VonMisesFisherDirection(nn.Linear(4, 8))(torch.zeros(5, 4)).event_shape
        torch.Size([3])
    """

    def __init__(self, net: nn.Module, dim: int = 3):
        super().__init__()
        whole(dim=dim)
        if dim != 3:
            raise ValueError(
                f"dim must be 3, got {dim}: the normaliser and the draws are exact on the sphere in 3-D only"
            )
        self.net, self.head = net, nn.Linear(out_features(net), 4)

    def forward(self, *context: Tensor) -> dist.Distribution:
        direction, raw = self.head(self.net(*context)).split([3, 1], dim=-1)
        return VonMisesFisher(F.normalize(direction, dim=-1), positive(raw.squeeze(-1)))
