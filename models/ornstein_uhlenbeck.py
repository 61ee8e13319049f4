"""A latent Ornstein-Uhlenbeck process, seen at times as irregular as they come."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import EachStep, GaussianChain
from dlvm.distributions.likelihoods.missing import PartlyObserved
from dlvm.distributions.sequences.lengths import steps_within
from dlvm.distributions.sequences.steps import Steps, chain_steps
from dlvm.models.arguments import fitting, sequences
from dlvm.nets.arguments import count


class OrnsteinUhlenbeck(PyroModule):
    """A state that forgets at a rate of its own in each dimension, seen through a linear map at any times.

        p(x, z) = N(z_1; 0, I) prod_t N(z_t; a_t z_t-1, 1 - a_t^2) prod_t N(x_t; W z_t + loc, scale^2),
        a_t = exp(-rate (time_t - time_t-1))

    The process is stationary, with variance 1: W has its scale. However far apart two steps are, the states between
    them are integrated out, so that a step in the middle that is NaN throughout changes nothing. On a regular grid it
    is ``LinearGaussianSSM`` with a diagonal transition. Numbers that are NaN were not seen, and are summed out.

    Sites:
        z: shape (batch, steps, z_dim), real; latent, one site, since its density needs no loop over x.
        x: shape (batch, steps, x_dim), real; observed, or drawn where ``x=None``.

    Args:
        z_dim: dimensions of the state.
        x_dim: number of observed variables.

    Raises:
        TypeError, ValueError: one of them is no integer of at least 1.

    References:
        On the Theory of the Brownian Motion, Uhlenbeck, Ornstein, 1930.

    Example:
        >>> times = torch.tensor([[0.0, 0.1, 4.0]])
        >>> OrnsteinUhlenbeck(2, 3)(times=times).shape
        torch.Size([1, 3, 3])
    """

    def __init__(self, z_dim: int, x_dim: int):
        super().__init__("model")
        count(z_dim=z_dim, x_dim=x_dim)
        self.z_dim, self.x_dim = z_dim, x_dim
        self.log_rate = nn.Parameter(torch.linspace(0, -2, z_dim))  # dimensions of several memories
        self.weight, self.loc = nn.Parameter(torch.randn(x_dim, z_dim)), nn.Parameter(torch.zeros(x_dim))
        self.log_scale = nn.Parameter(torch.zeros(x_dim))

    def forward(
        self,
        x: Tensor | None = None,
        lengths: Tensor | None = None,
        times: Tensor | None = None,
        n: int = 1,
        steps: int = 1,
    ) -> Tensor:
        """Runs the program.

        Args:
            x: shape (batch, steps, x_dim), or None to draw.
            lengths: of the sequences, shape (batch,); ``steps`` for each unless told.
            times: of the steps, shape (batch, steps), rising; 0, 1, 2, ... unless told. Rates are in their unit.
            n: how many sequences to draw where neither x nor times are given.
            steps: of them.

        Returns:
            x.
        """
        if x is not None:
            n, steps = self._checked(x, lengths, times)
        elif times is not None:
            check_times(times, lengths)
            n, steps = times.shape
        else:
            count(n=n, steps=steps)
        with pyro.plate("data", n):
            z = pyro.sample("z", self.prior(steps, lengths, times))
            likelihood = self.likelihood(z, lengths)
            return pyro.sample("x", likelihood, obs=fitting(x, likelihood))

    def likelihood(self, z: Tensor, lengths: Tensor | None = None) -> EachStep:
        """p(x | z), event shape (steps, x_dim), for z of shape (*batch, steps, z_dim)."""
        return EachStep(dist.Normal(z @ self.weight.T + self.loc, self.log_scale.exp()).to_event(1), lengths)

    def stepwise(self, x: Tensor, lengths: Tensor | None = None, times: Tensor | None = None) -> Steps:
        """The program one step at a time, as a particle filter needs it."""
        _, steps = self._checked(x, lengths, times)
        return chain_steps(self.prior(steps, lengths, times), self._emitted, x)

    def _emitted(self, z: Tensor) -> dist.TorchDistribution:
        """p(x_t | z_t), of which numbers that were not seen are summed out."""
        return PartlyObserved(dist.Normal(z @ self.weight.T + self.loc, self.log_scale.exp())).to_event(1)

    def prior(self, steps: int, lengths: Tensor | None = None, times: Tensor | None = None) -> GaussianChain:
        """p(z), event shape (steps, z_dim)."""
        rate = self.log_rate.exp()
        gaps = rate.new_ones(steps - 1) if times is None else times.diff(dim=-1).to(rate.dtype)
        if times is not None and lengths is not None:
            gaps = torch.where(steps_within(lengths, steps)[..., 1:], gaps, 1)
        away = gaps.unsqueeze(-1) * rate
        drift = (-torch.expm1(-2 * away)).sqrt()  # of steps close together the difference from 1 has its digits
        zero, one = torch.zeros_like(rate), torch.ones_like(rate)
        return GaussianChain.dynamics(zero, one, (-away).exp().diag_embed(), drift, lengths=lengths)

    def posterior(self, x: Tensor, lengths: Tensor | None = None, times: Tensor | None = None) -> GaussianChain:
        """Exact p(z | x), smoothed."""
        self._checked(x, lengths, times)
        prior = self.prior(x.shape[1], lengths, times)
        return prior.given(x, self.weight, self.loc, self.log_scale.exp())

    def guide(self, x: Tensor, lengths: Tensor | None = None, times: Tensor | None = None) -> Tensor:
        """The exact posterior as a program: every log-weight is log p(x)."""
        with pyro.plate("data", len(x)):
            return pyro.sample("z", self.posterior(x, lengths, times))

    def log_px(self, x: Tensor, lengths: Tensor | None = None, times: Tensor | None = None) -> Tensor:
        """Exact log p(x) in nats, shape (batch,): log p(x, z) - log p(z | x) at the posterior's mean."""
        posterior = self.posterior(x, lengths, times)
        z = posterior.mean
        seen = self.likelihood(z, lengths).log_prob(x)
        return self.prior(x.shape[1], lengths, times).log_prob(z) + seen - posterior.log_prob(z)

    def _checked(self, x: Tensor, lengths: Tensor | None, times: Tensor | None) -> tuple[int, int]:
        """How many sequences and steps there are."""
        n, steps = sequences(x, lengths, self.x_dim, self.loc.dtype)
        if times is not None:
            check_times(times, lengths)
            if times.shape != (n, steps):
                raise ValueError(f"times must have shape ({n}, {steps}), one for each step, got {tuple(times.shape)}")
        return n, steps


def check_times(times: Tensor, lengths: Tensor | None = None) -> None:
    """Refuses times that do not rise from step to step, within the lengths.

    Raises:
        TypeError: they are no tensor of real numbers.
        ValueError: they have another shape, are not finite, stand still or go back.
    """
    if not isinstance(times, Tensor) or not times.is_floating_point():
        got = times.dtype if isinstance(times, Tensor) else type(times).__name__
        raise TypeError(f"times must be a tensor of real numbers, got {got}; pass torch.as_tensor(times).float()")
    if times.dim() != 2 or not times.numel():
        raise ValueError(f"times must have shape (batch, steps), got {tuple(times.shape)}; one sequence is times[None]")
    if torch.compiler.is_compiling():
        return
    rising = times.isfinite()
    rising[:, 1:] &= times.diff(dim=-1) > 0
    if lengths is not None:
        rising |= ~steps_within(lengths, times.shape[1])
    if not rising.all():
        row, step = (~rising).nonzero()[0].tolist()
        now, before = times[row, step].item(), f" after {times[row, step - 1].item():g}" if step else ""
        raise ValueError(
            f"times must be finite and rise within a sequence, got {now:g}{before} in step {step} of sequence {row}; "
            "sort the steps by time, and put what was seen at one time into one step"
        )
