"""The switching linear dynamical system: classes that follow one another choose how a state moves."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import constraints

from dlvm.distributions import EachStep, GaussianChain, LearnedScale, MarkovChain
from dlvm.models.arguments import fitting, sequences, sequences_to_draw
from dlvm.models.autoregressive_hmm import AutoregressiveHMM
from dlvm.models.hidden_chain import Emission
from dlvm.nets import SwitchingLinear
from dlvm.nets.arguments import count


class SwitchingSSM(PyroModule):
    """A class for each step, which chooses how a state moves, and data that show the state with noise.

        p(x, y, z) = p(y_1) prod_t p(y_t | y_t-1) prod_t N(z_t; A_yt z_t-1 + b_yt, drift^2) prod_t N(x_t; W z_t + loc,
        scale^2),   y_t one-hot, z_0 = 0

    log p(x) is a sum over all paths of classes, and has no short form. But given z the classes are summed out exactly
    (p(z) is an ``AutoregressiveHMM``), so that a guide needs z alone; and given classes z is Gaussian, with Kalman's
    answers. Steps behind a sequence's length count nothing; numbers that are NaN were not seen, and are summed out.

    Sites:
        y: shape (batch, steps, states), one-hot at each step; latent, and not there where it is summed out.
        z: shape (batch, steps, z_dim), real; latent, one site, since p(z) needs no x.
        x: shape (batch, steps, x_dim), real; observed, or drawn where ``x=None``.

    Args:
        states: how many classes.
        z_dim: dimensions of the state.
        x_dim: number of observed variables.
        sum_out: whether the program has z under its exact density without y; else y is a latent site as well.

    Raises:
        TypeError, ValueError: a number is no integer of at least 1.

    References:
        Variational Learning for Switching State-Space Models, Ghahramani, Hinton, 2000.

    Example:
        >>> SwitchingSSM(3, 2, 4)(n=5, steps=7).shape
        torch.Size([5, 7, 4])
    """

    def __init__(self, states: int, z_dim: int, x_dim: int, sum_out: bool = True):
        super().__init__("model")
        count(states=states, z_dim=z_dim, x_dim=x_dim)
        self.states, self.z_dim, self.x_dim, self.sum_out = states, z_dim, x_dim, sum_out
        self.dynamics = AutoregressiveHMM(states, z_dim, Moves(states, z_dim))
        self.weight, self.loc = nn.Parameter(torch.randn(x_dim, z_dim)), nn.Parameter(torch.zeros(x_dim))
        self.log_scale = nn.Parameter(torch.zeros(x_dim))

    def forward(self, x: Tensor | None = None, lengths: Tensor | None = None, n: int = 1, steps: int = 1) -> Tensor:
        """Runs the program; see ``HiddenChain.forward``."""
        n, steps = sequences_to_draw(n, steps, lengths) if x is None else self._checked(x, lengths)
        classes = self.dynamics.prior(steps, lengths)
        with pyro.plate("data", n):
            y = None if self.sum_out else pyro.sample("y", classes)
            z = pyro.sample("z", States(self.dynamics, classes if y is not None else classes.expand((n,)), y))
            likelihood = self.likelihood(z, lengths)
            return pyro.sample("x", likelihood, obs=fitting(x, likelihood))

    def likelihood(self, z: Tensor, lengths: Tensor | None = None) -> EachStep:
        """p(x | z), event shape (steps, x_dim), for z of shape (*batch, steps, z_dim)."""
        return EachStep(dist.Normal(z @ self.weight.T + self.loc, self.log_scale.exp()).to_event(1), lengths)

    def classes_given(self, z: Tensor, lengths: Tensor | None = None) -> MarkovChain:
        """Exact p(y | z), which x adds nothing to, for z of shape (batch, steps, z_dim)."""
        return self.dynamics.posterior(z, lengths)

    def states_given(self, y: Tensor, lengths: Tensor | None = None) -> GaussianChain:
        """Exact p(z | y), event shape (steps, z_dim), for y of shape (*batch, steps, states)."""
        moves = self.dynamics.likelihood
        net: SwitchingLinear = moves.net  # type: ignore[assignment]  # as made above
        transition = torch.einsum("...tk,kij->...tij", y[..., 1:, :], net.weight)
        offset = net.bias + y @ net.own
        scale: Tensor = moves.scale()  # type: ignore[operator]  # a module
        drift = scale.expand(offset[..., 1:, :].shape)
        return GaussianChain.dynamics(offset[..., 0, :], scale, transition, drift, offset[..., 1:, :], lengths)

    def posterior_given(self, x: Tensor, y: Tensor, lengths: Tensor | None = None) -> GaussianChain:
        """Exact p(z | x, y), smoothed, for x of shape (batch, steps, x_dim) and paths y that broadcast with it."""
        self._checked(x, lengths)
        return self.states_given(y, lengths).given(x, self.weight, self.loc, self.log_scale.exp())

    def log_px_given(self, x: Tensor, y: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Exact log p(x | y) in nats, shape (batch,): log p(x, z | y) - log p(z | x, y) at the posterior's mean."""
        posterior = self.posterior_given(x, y, lengths)
        z = posterior.mean
        return (
            self.states_given(y, lengths).log_prob(z) + self.likelihood(z, lengths).log_prob(x) - posterior.log_prob(z)
        )

    def _checked(self, x: Tensor, lengths: Tensor | None) -> tuple[int, int]:
        """How many sequences and steps there are."""
        return sequences(x, lengths, self.x_dim, self.loc.dtype)


class States(Emission):
    """p(z | y), or p(z): of latent numbers, so that none is NaN, and any guide of real numbers fits them."""

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, 2)


class Moves(nn.Module):
    """p(z_t | y_t, z_t-1): linear in z_t-1, by a map that the class chooses, and noise that all classes share."""

    def __init__(self, states: int, z_dim: int):
        super().__init__()
        self.net, self.scale = SwitchingLinear(states, z_dim, z_dim), LearnedScale(0.5, dim=z_dim)

    def forward(self, y: Tensor, last: Tensor) -> dist.Distribution:
        return dist.Normal(self.net(y, last), self.scale()).to_event(1)
