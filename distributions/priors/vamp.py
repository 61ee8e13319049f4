"""The variational mixture of posteriors: a prior of what a guide says of pseudo-inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from dlvm.distributions.mixture import ReparametrisedMixture
from dlvm.nets.arguments import module


class PosteriorMixture(dist.MixtureSameFamily):
    """A mixture whose components all have the support of one, which is then its own.

    torch's own support of a mixture is a constraint to which no map from real numbers is known.
    """

    @property
    def support(self) -> constraints.Constraint:
        return self.component_distribution.support

    def expand(self, batch_shape: Sequence[int], _instance: PosteriorMixture | None = None) -> PosteriorMixture:
        return super().expand(batch_shape, self._get_checked_instance(PosteriorMixture, _instance))


class VampPrior(nn.Module):
    """A mixture, of equal weights, of the posteriors of pseudo-inputs.

        p(z) = 1/K sum_k q(z | u_k)

    It is the aggregate posterior where the u_k are all data, which no other prior is better than for a given guide and
    likelihood. Any distribution over vectors will do for q; each value costs K densities of it, and with a flow that is
    inverted step by step K times the inversion. With a diagonal Gaussian draws carry the gradient.

    What the guide hands out by ``posterior_of`` is read here and owned there: its parameters are the guide's alone,
    trained and counted once, with the gradients of both uses. A module of one's own is owned as usual.

    Args:
        posterior: q(z | x), a module from data, shape (K, ...), to a distribution of batch shape (K,).
        pseudo_inputs: u, a module without inputs that returns them, shape (K, ...): ``LearnedInputs`` or
            ``FixedInputs``.

    Raises:
        TypeError: one of them is no module; ``pseudo_inputs`` returns no tensor, ``posterior`` no distribution.
        ValueError: the distribution's batch shape is not (K,).

    References:
        VAE with a VampPrior, Tomczak, Welling, 2018, arXiv:1705.07120.

    Example:
        >>> from dlvm.distributions import DiagonalNormal, FixedInputs
        >>> q = DiagonalNormal(nn.Linear(4, 8), 2)
        >>> VampPrior(q, FixedInputs(torch.randn(10, 4)))().sample((5,)).shape
        torch.Size([5, 2])
    """

    def __init__(self, posterior: nn.Module, pseudo_inputs: nn.Module):
        super().__init__()
        module(posterior=posterior, pseudo_inputs=pseudo_inputs)
        self.posterior, self.pseudo_inputs = posterior, pseudo_inputs
        with torch.no_grad():
            self._components()

    def forward(self) -> dist.Distribution:
        q = self._components()
        logits = self.pseudo_inputs().new_zeros(q.batch_shape)
        if isinstance(q, Independent) and isinstance(q.base_dist, Normal) and q.reinterpreted_batch_ndims == 1:
            return ReparametrisedMixture(dist.Categorical(logits=logits), cast(dist.Independent, q))
        return PosteriorMixture(dist.Categorical(logits=logits), q)

    def _components(self) -> Distribution:
        """q(z | u_1), ..., q(z | u_K)."""
        inputs = self.pseudo_inputs()
        if not isinstance(inputs, Tensor):
            raise TypeError(f"pseudo_inputs must return a tensor, got {type(inputs).__name__}; see LearnedInputs")
        q = self.posterior(inputs)
        if not isinstance(q, Distribution):
            raise TypeError(
                f"posterior must return a distribution, got {type(q).__name__}; pass posterior_of(guide, 'z'), or a "
                "module as DiagonalNormal(net, dim)"
            )
        if q.batch_shape != inputs.shape[:1]:
            raise ValueError(
                f"posterior must return one distribution for each of {len(inputs)} pseudo-inputs, got batch shape "
                f"{tuple(q.batch_shape)}; declare the dimensions of z with to_event"
            )
        return q
