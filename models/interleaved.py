"""Programs over sequences that draw z_t and x_t in turn, each given all before it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import cast

import pyro
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import Distribution

from dlvm.distributions.sequences.lengths import steps_within
from dlvm.distributions.sequences.steps import State, Steps
from dlvm.models.arguments import fitting, sequences, sequences_to_draw
from dlvm.nets.arguments import count, module


class Interleaved(PyroModule):
    """Sequences whose latents depend on the data before them, so that sites of both take turns.

        p(x, z) = prod_t p(z_t | state_t-1) p(x_t | z_t, state_t-1),   state_t = after(state_t-1, z_t, x_t)

    A subclass says what its state is, in four methods, from which the program and its steps both are made. Steps behind
    a sequence's length count nothing. No number may be missing: what follows depends on it.

    Args:
        z_dim: latent dimensions of a step.
        x_dim: number of observed variables.
        hidden: width of the recurrent state.
        likelihood: p(x_t | ...), a module of vectors of this ``width``.
        width: what the likelihood is given.
    """

    def __init__(self, z_dim: int, x_dim: int, hidden: int, likelihood: nn.Module, width: int):
        super().__init__("model")
        count(z_dim=z_dim, x_dim=x_dim, hidden=hidden)
        self.z_dim, self.x_dim, self.hidden = z_dim, x_dim, hidden
        self.likelihood = checked(likelihood, width, x_dim)

    def begin(self, rows: int) -> State:
        """The state before the first step, shape (rows, ...)."""
        raise NotImplementedError(f"{type(self).__name__} must define begin(rows)")

    def z_given(self, state: State) -> TorchDistribution:
        """p(z_t | state), event shape (z_dim,)."""
        raise NotImplementedError(f"{type(self).__name__} must define z_given(state)")

    def x_given(self, state: State, z: Tensor) -> TorchDistribution:
        """p(x_t | z_t, state), event shape (x_dim,), for z of shape (*batch, z_dim)."""
        raise NotImplementedError(f"{type(self).__name__} must define x_given(state, z)")

    def after(self, state: State, z: Tensor, x: Tensor) -> State:
        """The state once z_t, shape (*batch, z_dim), and x_t, shape (batch, x_dim), are there."""
        raise NotImplementedError(f"{type(self).__name__} must define after(state, z, x)")

    def forward(self, x: Tensor | None = None, lengths: Tensor | None = None, n: int = 1, steps: int = 1) -> Tensor:
        """Runs the program.

        Args:
            x: shape (batch, steps, x_dim), or None to draw.
            lengths: of the sequences, shape (batch,); ``steps`` for each unless told.
            n: how many sequences to draw where x is None.
            steps: of them.

        Returns:
            x, 0 behind the lengths where it is drawn.
        """
        seen = None if x is None else whole_steps(self, self.x_dim, x, lengths)
        n, steps = sequences_to_draw(n, steps, lengths) if seen is None else seen.shape[:2]
        within = None if lengths is None else steps_within(lengths, steps)
        state, drawn = self.begin(n), []
        with pyro.plate("data", n):
            for t in range(steps):
                with nullcontext() if within is None else poutine.mask(mask=cast(torch.BoolTensor, within[:, t])):
                    z = pyro.sample(f"z_{t + 1}", self.z_given(state))
                    likelihood = self.x_given(state, z)
                    given = None if seen is None else fitting(seen[:, t], likelihood)
                    x_t = pyro.sample(f"x_{t + 1}", likelihood, obs=given)
                state = self.after(state, z, x_t)
                drawn.append(x_t)
        if x is not None:
            return x
        path = torch.stack(drawn, -2)
        return path if within is None else torch.where(within.unsqueeze(-1), path, 0)

    def stepwise(self, x: Tensor, lengths: Tensor | None = None) -> Steps:
        """The program one step at a time, as a particle filter needs it."""
        seen = whole_steps(self, self.x_dim, x, lengths)
        return Steps(
            start=self.begin(len(x)),
            z_given=lambda state, t: self.z_given(state),
            after=lambda state, z, t: self.after(state, z, seen[:, t]),
            x_given=lambda state, z, t: self.x_given(state, z),
            x=seen,
            lengths=lengths,
        )


def whole_steps(model: nn.Module, x_dim: int, x: Tensor, lengths: Tensor | None) -> Tensor:
    """The data of a model of ``x_dim`` variables whose later steps depend on the earlier ones.

    Returns:
        x, with the first step behind a sequence's length, where anything may have stood.

    Raises:
        TypeError, ValueError: as ``sequences``; a number is missing.
    """
    parameter = next(model.parameters())
    steps = sequences(x, lengths, x_dim, parameter.dtype)[1]
    if lengths is not None:
        x = torch.where(steps_within(lengths, steps).unsqueeze(-1), x, x[:, :1])
    if x.isnan().any():
        raise ValueError(
            f"x has numbers that are missing, on which what follows them depends in {type(model).__name__}: fill them "
            "in, cut sequences there, or take a model whose steps are independent given z, as the deep Markov model"
        )
    return x


def checked(likelihood: nn.Module, width: int, x_dim: int) -> nn.Module:
    """The likelihood itself, where it makes p(x_t) of vectors of this width.

    Raises:
        TypeError: it is no module, cannot be called so, or returns no distribution.
        ValueError: the distribution has another shape.
    """
    module(likelihood=likelihood)
    kind, remedy = type(likelihood).__name__, f"write Bernoulli(MLP({width}, 64, {x_dim})), or another in its place"
    try:
        with torch.no_grad():
            made = likelihood(torch.zeros(width))
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"likelihood {kind} must take vectors of width {width}, got {error}; {remedy}") from error
    if not isinstance(made, Distribution):
        raise TypeError(f"likelihood {kind} must return a distribution, got {type(made).__name__}; {remedy}")
    if made.event_shape != (x_dim,):
        raise ValueError(
            f"likelihood {kind} must return event shape ({x_dim},) from a vector of width {width}, got "
            f"{tuple(made.event_shape)}; {remedy}"
        )
    return likelihood


def beside(*parts: Tensor) -> Tensor:
    """Vectors of several leading shapes, one after the other: (*batch, a), (*batch, b) -> (*batch, a + b)."""
    shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*shape, part.shape[-1]) for part in parts], -1)


def moved(cell: nn.GRUCell, inputs: Tensor, state: Tensor) -> Tensor:
    """The next state of a recurrent cell over any leading dimensions."""
    state = state.expand(*inputs.shape[:-1], state.shape[-1])
    return cell(inputs.reshape(-1, inputs.shape[-1]), state.reshape(-1, state.shape[-1])).view_as(state)
