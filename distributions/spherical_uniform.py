"""Directions without a preference: the uniform density on the sphere, as a distribution and as a prior."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn
from torch.distributions import register_kl
from torch.nn import functional as F

from dlvm.distributions.bessel import log_bessel
from dlvm.distributions.von_mises_fisher import VonMisesFisher, log_area
from dlvm.nets.arguments import whole


class SphericalUniform(dist.TorchDistribution):
    """Unit vectors that are as likely in any direction.

        p(z) = 1 / area = Gamma(d / 2) / (2 pi^(d/2)),   |z| = 1

    Args:
        like: a vector of d numbers, at least 2, whose type and place draws have; its values do not matter.

    Raises:
        TypeError: ``like`` is no tensor of floats.
        ValueError: it is no vector of two numbers or more.

    References:
        Hyperspherical Variational Auto-Encoders, Davidson, Falorsi, De Cao, Kipf, Tomczak, 2018, arXiv:1804.00891.

    Example:
        >>> SphericalUniform(torch.zeros(4)).sample((5,)).norm(dim=-1)
        tensor([1.0000, 1.0000, 1.0000, 1.0000, 1.0000])
    """

    arg_constraints: dict = {}
    support = constraints.sphere
    has_rsample = True

    def __init__(self, like: Tensor, validate_args: bool | None = None):
        if not isinstance(like, Tensor) or not like.is_floating_point():
            got = like.dtype if isinstance(like, Tensor) else type(like).__name__
            raise TypeError(f"like must be a tensor of floats, got {got}; write torch.zeros(3)")
        if like.dim() != 1 or len(like) < 2:
            raise ValueError(f"like must be a vector of two numbers or more, got {tuple(like.shape)}; torch.zeros(3)")
        self.like = like
        super().__init__(torch.Size(), like.shape, validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: SphericalUniform | None = None) -> SphericalUniform:
        new = self._get_checked_instance(SphericalUniform, _instance)
        new.like = self.like
        super(SphericalUniform, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        shape = self._extended_shape(torch.Size(sample_shape))
        return F.normalize(torch.randn(shape, dtype=self.like.dtype, device=self.like.device), dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        batch = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return value.new_full(batch, -log_area(self.event_shape[0]))

    @property
    def mean(self) -> Tensor:
        return self.like.new_zeros(self._extended_shape())


class SphericalPrior(nn.Module):
    """The prior of directions: uniform on the sphere. A guide has a von Mises-Fisher head for it.

    Args:
        dim: how many numbers a direction has, at least 2.

    Raises:
        ValueError: ``dim`` is below 2.

    Example:
        >>> SphericalPrior(5)().event_shape
        torch.Size([5])
    """

    like: Tensor

    def __init__(self, dim: int):
        super().__init__()
        whole(dim=dim)
        if dim < 2:
            raise ValueError(f"dim must be at least 2, got {dim}: a direction of one number is a sign")
        self.register_buffer("like", torch.zeros(dim))

    def forward(self) -> dist.Distribution:
        return SphericalUniform(self.like)


@register_kl(VonMisesFisher, SphericalUniform)
def direction_to_uniform(q: VonMisesFisher, p: SphericalUniform) -> Tensor:
    """KL from a von Mises-Fisher density to the uniform one on the same sphere, shape (*batch), nats.

    KL(vMF(m, kappa) || U) = kappa A(kappa) - log L(kappa),   see ``log_bessel``

    Raises:
        ValueError: q and p have different event shapes.
        TypeError: q or p is of another class.
    """
    for name, value, kind in (("q", q, VonMisesFisher), ("p", p, SphericalUniform)):
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be a {kind.__name__}, got {type(value).__name__}; call kl_divergence(q, p)")
    if q.event_shape != p.event_shape:
        raise ValueError(
            f"KL(q || p) needs q and p over events of one shape, got q with {tuple(q.event_shape)} and p with "
            f"{tuple(p.event_shape)}; give both the same number of dimensions"
        )
    kappa = q.concentration.double()
    log_l, ratio = log_bessel(q.dim / 2 - 1, kappa)
    return (kappa * (ratio - 1) - log_l).to(q.concentration.dtype)
