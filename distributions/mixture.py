"""Mixtures of diagonal Gaussians whose draws carry the gradient of all parameters, the weights included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, Normal

from dlvm.distributions.normal import HALF_LOG_TWO_PI
from dlvm.distributions.scale import limited, positive
from dlvm.nets import out_features
from dlvm.nets.arguments import count, whole


class ReparametrisedMixture(dist.MixtureSameFamily):
    """A mixture of diagonal Gaussians with ``rsample``, by implicit reparametrisation.

    A draw z solves u_j(z; phi) = constant, u_j = F(z_j | z_{<j}), the conditional distribution function, so

        dz/dphi = -(du/dz)^-1 du/dphi,    du/dz lower triangular,  d u_j / d z_j = q(z_j | z_{<j})

    which is exact for first derivatives; second ones are not carried. Where components lie far apart the weights learn
    from the few draws between them: unbiased, but of large variance; a score-function estimator does not mind.

    Args:
        mixture_distribution: Categorical, with logits of shape (*batch, components).
        component_distribution: a vector of independent Gaussians, of batch shape (*batch, components).
        validate_args: as in every Pyro distribution.

    Raises:
        TypeError: one of the two is of another kind.
        ValueError: their numbers of components differ.

    References:
        Implicit Reparameterization Gradients, Figurnov, Mohamed, Mnih, 2018, arXiv:1805.08498.

    Example:
        >>> loc = torch.zeros(3, 2, requires_grad=True)
        >>> weights, components = dist.Categorical(logits=torch.zeros(3)), dist.Normal(loc, torch.ones(3, 2))
        >>> ReparametrisedMixture(weights, components.to_event(1)).rsample((5,)).requires_grad
        True
    """

    has_rsample = True
    support = constraints.real_vector  # torch's own knows no map from real numbers

    def __init__(
        self,
        mixture_distribution: dist.Categorical,
        component_distribution: dist.Independent,
        validate_args: bool | None = None,
    ):
        _check(mixture_distribution, component_distribution)
        super().__init__(mixture_distribution, component_distribution, validate_args)
        normal = cast("Independent[Normal]", component_distribution).base_dist
        self._unexpanded = mixture_distribution.logits, normal.loc, normal.scale

    def expand(
        self, batch_shape: Sequence[int], _instance: ReparametrisedMixture | None = None
    ) -> ReparametrisedMixture:
        new = super().expand(batch_shape, self._get_checked_instance(ReparametrisedMixture, _instance))
        new._unexpanded = self._unexpanded
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """The mixture's density; what does not depend on the value is computed once for all rows that share it."""
        if self._validate_args:
            self._validate_sample(value)
        logits, loc, scale = self._unexpanded
        scaled = (value.unsqueeze(-2) - loc) * scale.reciprocal()
        weights = logits.log_softmax(-1) - (scale.log() + HALF_LOG_TWO_PI).sum(-1)
        found = torch.logsumexp(weights - 0.5 * scaled.square().sum(-1), -1)
        return found.expand(torch.broadcast_shapes(found.shape, self.batch_shape))

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        z = self.sample(sample_shape)
        return self.implicit(z) if torch.is_grad_enabled() else z

    def implicit(self, z: Tensor) -> Tensor:
        """z, shape (*batch, dim), as a differentiable function of the parameters that leaves u(z) where it is."""
        normal, z = cast("Independent[Normal]", self.component_distribution).base_dist, z.detach()
        scaled = (z.unsqueeze(-2) - normal.loc) / normal.scale
        below = 0.5 * torch.erfc(-scaled / math.sqrt(2))
        log_density = -0.5 * scaled.square() - normal.scale.log()
        before = log_density.cumsum(-1).roll(1, -1) * (torch.arange(z.shape[-1], device=z.device) > 0)
        weights = (self.mixture_distribution.logits.unsqueeze(-1) + before).softmax(-2)
        u = (weights * below).sum(-2)
        with torch.no_grad():
            slopes = (weights * (below - u.unsqueeze(-2))).mT @ (-scaled / normal.scale)
            density = (weights * log_density.exp()).sum(-2) / math.sqrt(2 * math.pi)
            jacobian = slopes.tril(-1) + torch.diag_embed(density)
        change = torch.linalg.solve_triangular(jacobian, (u - u.detach()).unsqueeze(-1), upper=False)
        return z - change.squeeze(-1)


def _check(mixture: Distribution, components: Distribution) -> None:
    """Refuses, by name, what is no mixture of vectors of independent Gaussians."""
    if not isinstance(mixture, Categorical):
        raise TypeError(
            f"mixture_distribution must be a Categorical, got {_kind(mixture)}; pass Categorical(logits=...), whose "
            "logits have shape (*batch, components)"
        )
    if not (
        isinstance(components, Independent)
        and components.reinterpreted_batch_ndims == 1
        and isinstance(components.base_dist, Normal)
    ):
        raise TypeError(
            f"component_distribution must be a vector of independent Gaussians, got {_kind(components)}; pass "
            "Normal(loc, scale).to_event(1), with loc of shape (*batch, components, dim)"
        )
    weights, batch = mixture.logits.shape, components.batch_shape
    fitting = all(size in (1, other) for size, other in zip(reversed(weights), reversed(batch), strict=False))
    if weights[-1:] != batch[-1:] or len(weights) > len(batch) or not fitting:
        raise ValueError(
            f"component_distribution has batch shape {tuple(batch)}, where mixture_distribution has logits of shape "
            f"{tuple(weights)}; both end in the number of components, after the same batch"
        )


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else repr(value)


class MixtureNormal(nn.Module):
    """A mixture of diagonal Gaussians given a context.

        q(z | h) = sum_k weight_k(h) prod_j N(z_j; loc_kj(h), scale_kj(h)^2)

    Its draws can be differentiated, so every objective and estimator takes it. The components share one location and
    scale, from which each starts a little off: the whole starts near a plain DiagonalNormal.

    Args:
        net: contexts -> features, with ``out_features``; all parameters are linear in them before their limits.
        dim: number of dimensions.
        components: how many Gaussians.

    Raises:
        ValueError: ``components`` is below 2.

    References:
        Implicit Reparameterization Gradients, Figurnov, Mohamed, Mnih, 2018, arXiv:1805.08498.

    Example:
        >>> MixtureNormal(nn.Linear(4, 8), 3)(torch.zeros(5, 4)).event_shape
        torch.Size([3])
    """

    def __init__(self, net: nn.Module, dim: int, components: int = 4):
        super().__init__()
        count(dim=dim)
        whole(components=components)
        if components < 2:
            raise ValueError(f"components must be at least 2, got {components}; for one use DiagonalNormal")
        self.net, self.dim, self.components = net, dim, components
        self.head = nn.Linear(out_features(net), 2 * dim)
        self.parts = nn.Linear(out_features(net), components * (2 * dim + 1))
        with torch.no_grad():
            self.parts.weight.mul_(0.1)
            self.parts.bias.mul_(0.1)

    def forward(self, *context: Tensor) -> dist.Distribution:
        h = self.net(*context)
        loc, raw = self.head(h).unsqueeze(-2).chunk(2, dim=-1)
        parts = self.parts(h).unflatten(-1, (self.components, 2 * self.dim + 1))
        shift, own, logits = parts.split([self.dim, self.dim, 1], dim=-1)
        components = dist.Normal(loc + positive(raw) * shift, positive(raw + own)).to_event(1)
        return ReparametrisedMixture(dist.Categorical(logits=limited(logits.squeeze(-1))), components)
