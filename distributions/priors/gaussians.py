"""Priors of Gaussians whose parameters are learned: one with a scale for each dimension, and mixtures."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from dlvm.distributions.mixture import ReparametrisedMixture
from dlvm.distributions.scale import positive
from dlvm.nets.arguments import count

SPREAD = 0.3


class ARDNormal(nn.Module):
    """A Gaussian about zero with a learned scale for each dimension.

        p(z) = prod_j N(z_j; 0, scale_j^2),   scale = 1 at the start

    A dimension that the data do not need shrinks to nothing, where the decoder does not make up for it: its scale says
    how relevant the dimension is. The KL of Gaussian guides stays in closed form.

    Args:
        dim: number of dimensions.

    References:
        Bayesian Learning for Neural Networks, Neal, 1996 (automatic relevance determination).

    Example:
        >>> ARDNormal(3)().event_shape
        torch.Size([3])
    """

    loc: Tensor

    def __init__(self, dim: int):
        super().__init__()
        count(dim=dim)
        self.register_buffer("loc", torch.zeros(dim))
        self.raw = nn.Parameter(torch.zeros(dim))

    @property
    def scale(self) -> Tensor:
        """Standard deviation of each dimension, shape (dim,)."""
        return positive(self.raw)

    def forward(self) -> dist.Distribution:
        return dist.Normal(self.loc, self.scale).to_event(1)


class MixturePrior(nn.Module):
    """A mixture of diagonal Gaussians, all of whose parameters are learned.

        p(z) = sum_k weight_k prod_j N(z_j; loc_kj, scale_kj^2)

    The components start at random places near zero, and the whole with mean 0 and variance 1 in expectation. Draws
    carry the gradient of all parameters.

    Args:
        dim: number of dimensions.
        components: how many Gaussians; 1 is a Gaussian.

    References:
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 4.2, arXiv:1906.02691.

    Example:
        >>> MixturePrior(3, components=10)().sample((5,)).shape
        torch.Size([5, 3])
    """

    def __init__(self, dim: int, components: int = 10):
        super().__init__()
        count(dim=dim, components=components)
        self.logits = nn.Parameter(torch.zeros(components))
        alone = components == 1
        self.loc = nn.Parameter(torch.zeros(1, dim) if alone else SPREAD * torch.randn(components, dim))
        variance = 1.0 if alone else 1 - SPREAD**2
        self.raw = nn.Parameter(torch.full((components, dim), variance).log() / 2)

    def forward(self) -> dist.Distribution:
        components = dist.Normal(self.loc, positive(self.raw)).to_event(1)
        return ReparametrisedMixture(dist.Categorical(logits=self.logits), components)
