"""Mixtures of diagonal Gaussians whose draws carry the gradient of all parameters, the weights included."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from distributions.scale import limited, positive
from nets import out_features
from nets.numbers import count, whole


class ReparametrisedMixture(dist.MixtureSameFamily):
    """A mixture of diagonal Gaussians with ``rsample``, by implicit reparametrisation.

    A draw z solves u_j(z; phi) = constant, u_j = F(z_j | z_{<j}), the conditional distribution function, so

        dz/dphi = -(du/dz)^-1 du/dphi,    du/dz lower triangular,  d u_j / d z_j = q(z_j | z_{<j})

    which is exact for first derivatives; second ones are not carried. Where components lie far apart the weights learn
    from the few draws between them: unbiased, but of large variance; a score-function estimator does not mind.

    References:
        Implicit Reparameterization Gradients, Figurnov, Mohamed, Mnih, 2018, arXiv:1805.08498.

    Example:
        >>> loc = torch.zeros(3, 2, requires_grad=True)
        >>> weights, components = dist.Categorical(logits=torch.zeros(3)), dist.Normal(loc, torch.ones(3, 2))
        >>> ReparametrisedMixture(weights, components.to_event(1)).rsample((5,)).requires_grad
        True
    """

    has_rsample = True

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        z = self.sample(sample_shape)
        return self.implicit(z) if torch.is_grad_enabled() else z

    def implicit(self, z: Tensor) -> Tensor:
        """z, shape (*batch, dim), as a differentiable function of the parameters that leaves u(z) where it is."""
        normal, z = self.component_distribution.base_dist, z.detach()
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
            self.parts.weight *= 0.1
            self.parts.bias *= 0.1

    def forward(self, *context: Tensor) -> dist.Distribution:
        h = self.net(*context)
        loc, raw = self.head(h).unsqueeze(-2).chunk(2, dim=-1)
        parts = self.parts(h).unflatten(-1, (self.components, 2 * self.dim + 1))
        shift, own, logits = parts.split([self.dim, self.dim, 1], dim=-1)
        components = dist.Normal(loc + positive(raw) * shift, positive(raw + own)).to_event(1)
        return ReparametrisedMixture(dist.Categorical(logits=limited(logits.squeeze(-1))), components)
