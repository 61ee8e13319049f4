"""The stochastic recurrent network: a recurrent net of the data before a step and of noise at each step."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import constraints

from dlvm.distributions.sequences.conditional_chain import ConditionalChain
from dlvm.distributions.sequences.each_step import EachStep
from dlvm.distributions.sequences.lengths import Ragged
from dlvm.distributions.sequences.steps import State, Steps
from dlvm.models.arguments import sequences_to_draw
from dlvm.models.interleaved import beside, checked, whole_steps
from dlvm.nets.arguments import count
from dlvm.nets.recurrences.states import all_states


class STORN(PyroModule):
    """Noise that is independent from step to step enters a recurrent net of the data, which says what comes next.

        p(x, z) = prod_t N(z_t; 0, I) p(x_t | h_t),   h_t = GRU(h_t-1; x_t-1, z_t),   h_0 = 0, x_0 = 0

    p(z) is free of x, so that z is one site, and given z and x all steps have their densities from one run of the net.
    Steps behind a sequence's length count nothing. No number may be missing: what follows depends on it.

    Sites:
        z: shape (batch, steps, z_dim), real; latent.
        x: shape (batch, steps, x_dim); observed, or drawn where ``x=None``.

    Args:
        z_dim: latent dimensions of a step.
        x_dim: number of observed variables.
        hidden: width of h.
        likelihood: p(x_t | h_t), a module of (*batch, hidden) that returns a distribution of event shape (x_dim,), as
            ``Bernoulli(MLP(hidden, 64, x_dim))``.

    Raises:
        TypeError: a number is no integer, or ``likelihood`` no module that returns a distribution of such vectors.
        ValueError: a number is below 1, or p(x_t) has another shape; when called, a number of x is missing, or x
            has another shape.

    References:
        Learning Stochastic Recurrent Networks, Bayer, Osendorfer, 2014, arXiv:1411.7610.

    Example:
        >>> from dlvm.distributions import Bernoulli
        >>> from dlvm.nets import MLP
        >>> STORN(2, 3, 8, Bernoulli(MLP(8, 3)))(n=5, steps=7).shape
        torch.Size([5, 7, 3])
    """

    def __init__(self, z_dim: int, x_dim: int, hidden: int, likelihood: nn.Module):
        super().__init__("model")
        count(z_dim=z_dim, x_dim=x_dim, hidden=hidden)
        self.z_dim, self.x_dim, self.hidden = z_dim, x_dim, hidden
        self.likelihood = checked(likelihood, hidden, x_dim)
        self.net = nn.GRU(x_dim + z_dim, hidden, batch_first=True)

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
        if x is None:
            sequences_to_draw(n, steps, lengths)
        else:
            n, steps = whole_steps(self, self.x_dim, x, lengths).shape[:2]
        with pyro.plate("data", n):
            z = pyro.sample("z", self.prior(steps, lengths))
            return pyro.sample("x", Unrolled(self, z, lengths), obs=x)

    def prior(self, steps: int, lengths: Tensor | None = None) -> ConditionalChain:
        """p(z), event shape (steps, z_dim): a chain whose links do not depend on the last."""
        zeros = next(self.net.parameters()).new_zeros(self.z_dim)
        return ConditionalChain(lambda last: dist.Normal(zeros, 1.0).to_event(1), zeros, steps, lengths=lengths)

    def states(self, before: Tensor, z: Tensor, state: Tensor | None = None) -> Tensor:
        """h of each step, shape (*batch, steps, hidden), from x a step before, z, and h before the first."""
        inputs = beside(before, z)
        flat = inputs.reshape(-1, *inputs.shape[-2:])
        first = flat.new_zeros(self.hidden) if state is None else state
        start = first.expand(*inputs.shape[:-2], -1).reshape(1, len(flat), -1).contiguous()
        return all_states(self.net, flat, start).reshape(*inputs.shape[:-1], -1)

    def stepwise(self, x: Tensor, lengths: Tensor | None = None) -> Steps:
        """The program one step at a time, as a particle filter needs it."""
        seen = whole_steps(self, self.x_dim, x, lengths)
        before = nn.functional.pad(seen, (0, 0, 1, 0))
        zeros = x.new_zeros(self.z_dim)

        def after(state: State, z: Tensor, t: int) -> State:
            return self.states(before[:, t : t + 1], z.unsqueeze(-2), state).squeeze(-2)

        return Steps(
            start=x.new_zeros(len(x), self.hidden),
            z_given=lambda state, t: dist.Normal(zeros, 1.0).to_event(1),
            after=after,
            x_given=lambda state, z, t: self.likelihood(after(state, z, t)),
            x=seen,
            lengths=lengths,
        )


class Unrolled(Ragged):
    """p(x | z): each step given those before it.

    Args:
        model: whose net it is.
        z: shape (*batch, steps, z_dim).
        lengths: shape (batch,); all steps unless told.
        validate_args: as in every Pyro distribution.
    """

    arg_constraints: dict = {}

    def __init__(self, model: STORN, z: Tensor, lengths: Tensor | None = None, validate_args: bool | None = None):
        self.model, self.z, self.lengths = model, z, lengths
        batch = z.shape[:-2] if lengths is None else torch.broadcast_shapes(z.shape[:-2], lengths.shape)
        super().__init__(batch, torch.Size([z.shape[-2], model.x_dim]), validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        return self._given(self.z.new_zeros(*self.z.shape[:-1], self.model.x_dim)).support

    @property
    def mean(self) -> Tensor:
        raise NotImplementedError("the mean of x given z is a sum over all data before each step; draw, and average")

    def _given(self, x: Tensor) -> EachStep:
        """p(x_t | x_1..x_t-1, z) for all t at once."""
        if self.within is not None:
            x = torch.where(self.within.unsqueeze(-1), x, x[..., :1, :])
        before = nn.functional.pad(x, (0, 0, 1, 0))[..., :-1, :]
        made = self.model.likelihood(self.model.states(before, self.z))
        return EachStep(made, self.lengths, validate_args=self._validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Unrolled | None = None) -> Unrolled:
        z = self.z.expand(*batch_shape, *self.z.shape[-2:])
        lengths = None if self.lengths is None else self.lengths.expand(tuple(batch_shape))
        return Unrolled(self.model, z, lengths, validate_args=self._validate_args)

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            z = self.z.expand(*sample_shape, *self.z.shape)
            last, state, drawn = z.new_zeros(*z.shape[:-2], self.model.x_dim), None, []
            for t in range(z.shape[-2]):
                state = self.model.states(last.unsqueeze(-2), z[..., t : t + 1, :], state).squeeze(-2)
                last = self.model.likelihood(state).sample()
                drawn.append(last)
            path = torch.stack(drawn, -2)
            return path if self.within is None else torch.where(self.within.unsqueeze(-1), path, 0)

    def log_prob(self, value: Tensor) -> Tensor:
        return self._given(value).log_prob(value)
