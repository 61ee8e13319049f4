"""Hamiltonian dynamics on a model's own density: its slope, and the leapfrog that follows it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _DIM_ALLOCATOR
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.distributions import constraints

from dlvm.guides.amortized import Amortized
from dlvm.guides.joint import placed_at
from dlvm.guides.sites.latents import Latent, Node
from dlvm.guides.sites.site_types import Reshaped

MOST = 20.0


class Leapfrog(nn.Module):
    """The leapfrog integrator, with learned step sizes: it can be run backwards and keeps volume.

        v <- v + kick(u),   u <- u + eps_t * v,   v <- v + kick(u),   kick(u) = clamp(eps_t / 2 * slope(u), -20, 20)

    A kick is limited so that a step far too large for the slope does not leave the numbers; whatever the kick, the step
    can be undone and keeps volume. Each dimension has a step size of its own. A diagonal mass would add nothing:
    dividing v by its root turns (eps, mass) into (eps / root of mass, 1).

    Args:
        steps: T, how many step sizes there are per dimension.
        dim: number of dimensions of u and of v.
        leaps: how many times in a row each step size is used.
        size: what the step sizes start from.
    """

    def __init__(self, steps: int, dim: int, leaps: int = 1, size: float = 0.1):
        super().__init__()
        self.leaps = leaps
        self.log_size = nn.Parameter(torch.full((steps, dim), math.log(size)))

    def forward(
        self, t: int, u: Tensor, v: Tensor, slope: Callable[[Tensor], Tensor], back: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Moves (u, v), each of shape (*batch, dim), by the step t = 0..T-1, or undoes it."""
        size = self.log_size[t].exp()
        size = -size if back else size
        for _ in range(self.leaps):
            v = v + (size / 2 * slope(u)).clamp(-MOST, MOST)
            u = u + size * v
            v = v + (size / 2 * slope(u)).clamp(-MOST, MOST)
        return u, v


class Slope:
    """d log p(x, u) / du, where u are a model's latents as one unconstrained vector per datum.

        log p(x, u) = log p(x, z(u)) + sum_j log |dz_j / du_j|

    The model is run with no handler and no plate from around it, and counts every datum once: subsampling,
    ``poutine.scale`` and tempering leave the slope as it is. Gradients go through it to u and to the model's parameters
    wherever gradients are on.

    Args:
        model: the Pyro program, which is deterministic given its latents.
        latents: {site: Latent} in the order of their parts in u.
        plate: name of the plate over data.
        rows: which data the batch has, as that plate says; None where the model picks them by itself.
        args, kwargs: what the model is called with.
    """

    def __init__(
        self,
        model: Callable,
        latents: Mapping[str, Latent],
        plate: str,
        rows: Tensor | None,
        args: tuple,
        kwargs: dict,
    ):
        self.model, self.call, self.rows = model, (args, kwargs), {} if rows is None else {plate: rows}
        self.parts = {name: (Reshaped(latent), len(latent.shape)) for name, latent in latents.items()}
        self.local = pyro.settings.get("module_local_params")
        self._last: tuple = (None, None, None)

    def __call__(self, u: Tensor) -> Tensor:
        """Shape (*batch, dim) -> the same."""
        on = torch.is_grad_enabled()
        if self._last[0] is not u or self._last[1] != on:
            with torch.enable_grad():
                point = u if on and u.requires_grad else u.detach().requires_grad_()
                (slope,) = torch.autograd.grad(self.log_joint(point), point, create_graph=on)
            self._last = u, on, slope
        return self._last[2]

    def log_joint(self, u: Tensor) -> Tensor:
        """log p(x, u) summed over the batch, a 0-d tensor, nats."""
        pieces = u.split([part.size for part, _ in self.parts.values()], dim=-1)
        placed = {
            name: placed_at(piece, part, event_dim)
            for piece, (name, (part, event_dim)) in zip(pieces, self.parts.items(), strict=True)
        }
        values = {name: q.v for name, q in placed.items()}
        args, kwargs = self.call
        with _apart(self.local), poutine.trace() as traced, poutine.condition(data=self.rows | values):
            with _Owning(self.model):
                self.model(*args, **kwargs)
        nodes = traced.trace.nodes.values()
        sites: list[Node] = [s for s in nodes if s["type"] == "sample" and not site_is_subsample(s)]
        densities = [scale_and_mask(s["fn"].log_prob(s["value"]), 1.0, s["mask"]).sum() for s in sites]
        return sum(densities) - sum(q.log_density.sum() for q in placed.values())


@contextmanager
def _apart(local: bool) -> Iterator[None]:
    """Inside, a program runs as if no handler and no plate were around it."""
    taken, _DIM_ALLOCATOR._stack = _DIM_ALLOCATOR._stack, []
    try:
        with poutine.block(), pyro.settings.context(module_local_params=local):
            yield
    finally:
        _DIM_ALLOCATOR._stack = taken


class _Owning(Messenger):
    """Refuses parameters that a model does not own, which the programs that run it would keep apart."""

    def __init__(self, model: Callable):
        super().__init__()
        self.model = model

    def _pyro_param(self, msg: dict[str, Any]) -> None:
        if not isinstance(self.model, nn.Module):
            raise TypeError(
                f"the model is a function that declares the parameter {msg['name']!r}, which guide and model would "
                "keep apart; write the model as a PyroModule that owns it"
            )


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
        momenta: nn.ModuleList,
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

    def expand(self, batch_shape: Sequence[int], _instance: Trajectory | None = None) -> Trajectory:
        return Trajectory(*self.made_of, batch_shape=torch.Size(batch_shape))

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
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
        start, parts = self.start, {}
        parents: list[Tensor] = []
        log_q: list[Tensor] = []
        if given is not None:
            split = given.split([self.sizes[name] for name in self.order], dim=-1)
            parts = dict(zip(self.order, split, strict=True))
        for name, posterior in zip(start.names, start.posteriors, strict=True):
            q = posterior(self.h, *parents)
            if given is None:
                q = q if q.batch_shape == shape else q.expand(shape)
                parts[name] = q.rsample()
            log_q.append(q.log_prob(parts[name]))
            if start.order != "independent":
                parents.append(parts[name].to(self.h.dtype))
        return torch.cat([parts[name] for name in self.order], dim=-1), sum(log_q[1:], log_q[0])
