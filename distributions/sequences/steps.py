"""A chain of latents one step at a time, as a particle filter goes through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution

from dlvm.distributions.sequences.conditional_chain import ConditionalChain
from dlvm.distributions.sequences.each_step import EachStep
from dlvm.distributions.sequences.gaussian_chain import GaussianChain
from dlvm.distributions.sequences.lengths import steps_within

State = Any  # a tensor, or a tuple of states


@dataclass(frozen=True)
class Steps:
    """What a program says of a sequence, one step at a time.

        z_t ~ z_given(state, t),   x_t ~ x_given(state, z_t, t),   state <- after(state, z_t, t)

    Steps are counted from 0, as in ``x[:, t]``. A state is a tensor, or a tuple of states, of shape (batch, ...), and
    holds all of the past that what follows depends on; a filter puts particles on the left, (num_particles, batch,
    ...), and picks among them. So every function here takes any leading dimensions before those of the batch. A guide
    has no ``x_given``.

    Attributes:
        start: the state before the first step, shape (batch, ...).
        z_given: (state, t) -> p(z_t | what came before), or q of a guide; batch shape that of the state, or one that
            broadcasts to it; event shape (z_dim,).
        after: (state, z_t, t) -> the state after a step; what is known of x_t may enter as well.
        x_given: (state, z_t, t) -> p(x_t | z_t, what came before), event shape (x_dim,), the state being that before
            ``after``.
        x: the data, shape (batch, T, x_dim), or tokens, shape (batch, T).
        lengths: how many steps of each sequence count, shape (batch,); all unless told.
        missing: whether numbers that are NaN were not seen and are summed out, as is right where x_t is independent of
            all else given z_t; else the likelihood refuses them.

    Example:
        >>> import pyro.distributions as dist
        >>> walk = Steps(torch.zeros(5, 1), lambda z, t: dist.Normal(z, 1.0).to_event(1), lambda state, z, t: z)
        >>> walk.densities(torch.zeros(5, 3, 1))[0].shape
        torch.Size([5, 3])
    """

    start: State
    z_given: Callable[[State, int], TorchDistribution]
    after: Callable[[State, Tensor, int], State]
    x_given: Callable[[State, Tensor, int], TorchDistribution] | None = None
    x: Tensor | None = None
    lengths: Tensor | None = None
    missing: bool = False

    def densities(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """log p(z_t | what came before) and log p(x_t | z_t, what came before) of every step.

        Returns:
            shapes (*batch, T), nats, 0 behind a sequence's length; the second None for a guide.

        Args:
            z: shape (*batch, T, z_dim).
        """
        state = self.start
        latent: list[Tensor] = []
        seen: list[Tensor] = []
        for t in range(z.shape[-2]):
            z_t = z[..., t, :]
            latent.append(self.z_given(state, t).log_prob(z_t))
            if self.x_given is not None:
                seen.append(self.log_x_given(state, z_t, t))
            state = self.after(state, z_t, t)
        log_z = torch.stack(torch.broadcast_tensors(*latent), -1)
        log_x = torch.stack(torch.broadcast_tensors(*seen), -1) if seen else None
        if self.lengths is not None:
            log_z = torch.where(steps_within(self.lengths, z.shape[-2]), log_z, 0)
        return log_z, log_x

    def log_x_given(self, state: State, z: Tensor, t: int) -> Tensor:
        """log p(x_t | z_t, state), shape (*batch,), nats; 0 behind the length."""
        if self.x is None or self.x_given is None:
            raise ValueError("x_given and x must be there for a density of data, got the steps of a guide")
        x = self.x[:, t]
        if self.lengths is not None:  # what stands behind a sequence need not be in the support
            within = t < self.lengths
            x = torch.where(within.reshape(-1, *[1] * (x.dim() - 1)), x, self.x[:, 0])
        likelihood = self.x_given(state, z, t)
        found = EachStep(likelihood).densities(x) if self.missing else likelihood.log_prob(x)
        return found if self.lengths is None else torch.where(within, found, 0)


@runtime_checkable
class Stepwise(Protocol):
    """A program over sequences that can be gone through one step at a time: a model, or a guide of it.

    What ``forward`` draws with the same arguments and what these steps say have the same density.
    """

    def stepwise(self, x: Tensor, lengths: Tensor | None = None) -> Steps:
        """The program's steps on some data, shape (batch, T, x_dim)."""


def chain_steps(
    chain: Distribution, likelihood: Callable[[Tensor], TorchDistribution] | None = None, x: Tensor | None = None
) -> Steps:
    """The steps of a chain that is one site, with what is seen of each state: what most state spaces are.

        state = z_t,   x_t ~ likelihood(z_t)

    Returns:
        the steps; of a guide where there is no likelihood.

    Args:
        chain: p(z_1..z_T) or q, a ConditionalChain or a GaussianChain, of batch shape (batch,) or ().
        likelihood: makes p(x_t | z_t), of event shape (x_dim,), from z_t, shape (*batch, z_dim).
        x: the data, shape (batch, T, x_dim); numbers that are NaN were not seen.

    Raises:
        TypeError: ``chain`` is of another kind.

    Example:
        >>> import pyro.distributions as dist
        >>> walk = ConditionalChain(lambda z: dist.Normal(z, 1.0).to_event(1), torch.zeros(2), steps=3)
        >>> chain_steps(walk.expand((5,))).densities(torch.zeros(5, 3, 2))[0].shape
        torch.Size([5, 3])
    """
    z_given: Any
    if isinstance(chain, ConditionalChain):
        start, z_given = chain.start, chain.of_step
    elif isinstance(chain, GaussianChain):
        start, z_given = chain.linear[..., 0, :], _gaussian_step(chain)
    else:
        raise TypeError(
            f"chain must be a ConditionalChain or a GaussianChain, got {type(chain).__name__}; give the program a "
            "method stepwise(x, lengths) that returns its Steps"
        )
    batch = chain.batch_shape if x is None else (len(x),)
    return Steps(
        start=start.expand(*batch, chain.event_shape[1]),
        z_given=z_given,
        after=lambda state, z, t: z,
        x_given=None if likelihood is None else lambda state, z, t: likelihood(z),
        x=x,
        lengths=chain.lengths,
        missing=True,
    )


def _gaussian_step(chain: GaussianChain) -> Callable[[State, int], TorchDistribution]:
    """p(z_t | z_t-1): what lies behind each step is summed out, from the last one on.

    p(z_t | z_t-1) = N(P_t^-1 (h_t - L_t-1 z_t-1), P_t^-1), with what remains of h_t and J_t.
    """
    steps = chain.event_shape[0]
    linear, precision = chain.linear[..., -1, :], chain.precision[..., -1, :, :]
    left = [(linear, precision)]
    for t in reversed(range(steps - 1)):
        coupling = chain.coupling[..., t, :, :]
        root = torch.linalg.cholesky(precision)
        moved = torch.cholesky_solve(torch.cat([coupling, linear.unsqueeze(-1)], -1), root)
        linear = chain.linear[..., t, :] - (coupling.mT @ moved[..., -1:]).squeeze(-1)
        precision = chain.precision[..., t, :, :] - coupling.mT @ moved[..., :-1]
        left.append((linear, precision))
    left.reverse()

    def z_given(state: State, t: int) -> TorchDistribution:
        linear, precision = left[t]
        if t:
            linear = linear - (chain.coupling[..., t - 1, :, :] @ state.unsqueeze(-1)).squeeze(-1)
        loc = torch.cholesky_solve(linear.unsqueeze(-1), torch.linalg.cholesky(precision)).squeeze(-1)
        return dist.MultivariateNormal(loc, precision_matrix=precision)

    return z_given


def spread(state: State, shape: Sequence[int]) -> State:
    """A state of (batch, ...) for each of some particles: (*shape, batch, ...)."""
    if isinstance(state, tuple):
        return tuple(spread(part, shape) for part in state)
    return state.expand(*shape, *state.shape)


def picked(state: State, ancestors: Tensor) -> State:
    """The state of chosen particles: of (particles, batch, ...), by their numbers in ``ancestors``, same two sizes.

    Example:
        >>> picked(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1, 0], [1, 1]]))
        tensor([[3., 2.],
                [3., 4.]])
    """
    if isinstance(state, tuple):
        return tuple(picked(part, ancestors) for part in state)
    index = ancestors.reshape(*ancestors.shape, *[1] * (state.dim() - 2)).expand(*ancestors.shape, *state.shape[2:])
    return state.gather(0, index)
