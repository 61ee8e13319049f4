"""Where a guide's draw is carried by Hamiltonian dynamics, as one distribution with a density."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from guides.amortized import Amortized
from guides.leapfrog import Leapfrog, Slope


class Trajectory(dist.TorchDistribution):
    """The end of T leapfrog steps from a guide's draw, together with the T momenta that led there.

        u_0 ~ q(u_0 | h),   v'_t ~ q(v_t | h, u_(t-1)),   (u_t, v_t) = leapfrog_t(u_(t-1), v'_t)
        log q(u_T, v_1..v_T | h) = log q(u_0 | h) + sum_t log q(v'_t | h, u_(t-1))

    Its events are [u_T, v_1, .., v_T]. The last draw is scored by what it was made from, any other value by running the
    steps backwards.

    Args:
        start: the guide whose distributions q(u_0 | h) are.
        order: the guide's sites in the order of their parts in u.
        momenta: modules (h, u) -> distribution of v', one per step.
        leapfrog, slope: the dynamics.
        h: features of the data, shape (batch, H).
        batch_shape: that of h unless told.
    """

    arg_constraints = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        start: Amortized,
        order: Sequence[str],
        momenta: Sequence[nn.Module],
        leapfrog: Leapfrog,
        slope: Slope,
        h: Tensor,
        batch_shape: torch.Size | None = None,
    ):
        self.made_of = start, order, momenta, leapfrog, slope, h
        self.start, self.order, self.momenta, self.leapfrog, self.slope, self.h = self.made_of
        self.sizes = {name: site.size for name, site in zip(start.names, start.sites, strict=True)}
        event = torch.Size([sum(self.sizes.values()) * (1 + len(momenta))])
        super().__init__(h.shape[:-1] if batch_shape is None else batch_shape, event, validate_args=False)
        self._drawn: tuple = (None, None, None)

    def expand(self, batch_shape: torch.Size, _instance=None) -> Trajectory:
        return Trajectory(*self.made_of, batch_shape=torch.Size(batch_shape))

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        u, log_q = self._begin(torch.Size(sample_shape) + self.batch_shape)
        momenta = []
        for t, momentum in enumerate(self.momenta):
            q = momentum(self.h, u)
            v = q.rsample()
            log_q = log_q + q.log_prob(v)
            u, v = self.leapfrog(t, u, v, self.slope)
            momenta.append(v)
        value = torch.cat([u, *momenta], dim=-1)
        self._drawn = value, torch.is_grad_enabled(), log_q
        return value

    def log_prob(self, value: Tensor) -> Tensor:
        drawn, differentiable, log_q = self._drawn
        if drawn is value and (differentiable or not torch.is_grad_enabled()):
            return log_q
        u, *momenta = value.split(sum(self.sizes.values()), dim=-1)
        log_q = 0.0
        for t in reversed(range(len(momenta))):
            u, v = self.leapfrog(t, u, momenta[t], self.slope, back=True)
            log_q = log_q + self.momenta[t](self.h, u).log_prob(v)
        return log_q + self._begin(u.shape[:-1], u)[1]

    def _begin(self, shape: torch.Size, given: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """u_0, drawn or given, and log q(u_0 | h); batch shape ``shape``."""
        start, parts, parents, log_q = self.start, {}, [], 0.0
        if given is not None:
            split = given.split([self.sizes[name] for name in self.order], dim=-1)
            parts = dict(zip(self.order, split, strict=True))
        for name, posterior in zip(start.names, start.posteriors, strict=True):
            q = posterior(self.h, *parents)
            if given is None:
                q = q if q.batch_shape == shape else q.expand(shape)
                parts[name] = q.rsample()
            log_q = log_q + q.log_prob(parts[name])
            if start.order != "independent":
                parents.append(parts[name].to(self.h.dtype))
        return torch.cat([parts[name] for name in self.order], dim=-1), log_q
