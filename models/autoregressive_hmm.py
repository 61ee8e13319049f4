"""The autoregressive hidden Markov model: what a class shows depends on what was seen a step before."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from dlvm.distributions import MarkovChain
from dlvm.distributions.sequences.lengths import steps_within
from dlvm.models.hidden_chain import HiddenChain
from dlvm.nets.arguments import count, module


class AutoregressiveHMM(HiddenChain):
    """A class for each step, dependent on the last one, and data that depend on the class and on the data before.

        p(x, z) = p(z_1) prod_t p(z_t | z_t-1) prod_t p(x_t | z_t, x_t-1),   x_0 = 0, z_t one-hot

    With a network for p(x_t | z_t, x_t-1) it is a neural hidden Markov model. Given x, classes form a Markov chain
    still, so that the sum over their paths is exact. No step may be missing: the next one depends on it.

    Sites:
        z: shape (batch, steps, states), one-hot at each step; latent, and not there where it is summed out.
        x: shape (batch, steps, x_dim), where the likelihood has its support; observed, or drawn where ``x=None``.

    Args:
        states: how many classes.
        x_dim: number of observed variables.
        likelihood: p(x_t | z_t, x_t-1), a module of z (*batch, states) and of the last x (*batch, x_dim) that returns a
            distribution of event shape (x_dim,), as ``Bernoulli(SwitchingDiagonal(states, x_dim))``.
        sum_out: whether the program has x alone, under its exact density; else z is a latent site.

    Raises:
        TypeError: a number is no integer, or the likelihood no module that returns a distribution.
        ValueError: a number is below 1, or the distribution has another shape.

    References:
        A New Approach to the Economic Analysis of Nonstationary Time Series and the Business Cycle, Hamilton, 1989.
        Tensor Variable Elimination for Plated Factor Graphs, Obermeyer et al., 2019, arXiv:1902.03210, section 6.1.

    Example:
        >>> from dlvm.distributions import Bernoulli
        >>> from dlvm.nets import SwitchingDiagonal
        >>> AutoregressiveHMM(3, 2, Bernoulli(SwitchingDiagonal(3, 2)))(n=5, steps=7).shape
        torch.Size([5, 7, 2])
    """

    every: Tensor

    def __init__(self, states: int, x_dim: int, likelihood: nn.Module, sum_out: bool = True):
        count(states=states)
        super().__init__(x_dim, sum_out)
        module(likelihood=likelihood)
        self.states, self.likelihood = states, likelihood
        self.initial_logits = nn.Parameter(torch.zeros(states))
        self.transition_logits = nn.Parameter(torch.randn(states, states) / 2)
        self.register_buffer("every", torch.eye(states), persistent=False)
        check_step(likelihood, self.every, torch.zeros(x_dim))

    @property
    def transition(self) -> Tensor:
        """p(z_t | z_t-1), shape (states, states), a row for each z_t-1."""
        return self.transition_logits.softmax(-1)

    @property
    def step_support(self) -> constraints.Constraint:
        return self.likelihood(self.every[0], self.every.new_zeros(self.x_dim)).support

    @property
    def unseen(self) -> str:
        inside = f"cut sequences there: all must lie in {self.step_support}"
        return f"missing, and the step after one that was not seen depends on it; fill steps in, or {inside}"

    def prior(self, steps: int, lengths: Tensor | None = None) -> MarkovChain:
        """p(z), event shape (steps, states)."""
        none = self.initial_logits.new_zeros(steps, self.states)
        moves = self.initial_logits.log_softmax(-1), self.transition_logits.log_softmax(-1)
        return MarkovChain(*moves, none, lengths)

    def log_emission(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """log p(x_t | z_t, x_t-1) for each class, shape (*batch, steps, states); 0 behind a sequence's length."""
        within = None if lengths is None else steps_within(lengths, x.shape[-2]).unsqueeze(-1)
        x = x if within is None else torch.where(within, x, x[..., :1, :])  # in the support, whatever stood there
        last = nn.functional.pad(x[..., :-1, :], (0, 0, 1, 0))
        each: Tensor = self.likelihood(self.every, last.unsqueeze(-2)).log_prob(x.unsqueeze(-2))
        return each if within is None else torch.where(within, each, 0)

    def draw(self, z: Tensor) -> Tensor:
        last, drawn = z.new_zeros(*z.shape[:-2], self.x_dim), []
        for now in z.unbind(-2):
            drawn.append(last := self.likelihood(now, last).sample())
        return torch.stack(drawn, -2)


def check_step(likelihood: nn.Module, z: Tensor, last: Tensor) -> None:
    """Refuses a likelihood that does not return a distribution of one step for each class.

    Raises:
        TypeError: it cannot be called with a class and the last step, or returns no distribution.
        ValueError: the distribution has another shape.
    """
    kind, wanted = type(likelihood).__name__, (tuple(z.shape[:1]), tuple(last.shape))
    remedy = "write Bernoulli(SwitchingDiagonal(states, x_dim)), or a module of (z, last x) in its place"
    try:
        with torch.no_grad():
            made = likelihood(z, last)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"likelihood {kind} must take z and the last x, got {error}; {remedy}") from error
    if not isinstance(made, Distribution):
        raise TypeError(f"likelihood {kind} must return a distribution, got {type(made).__name__}; {remedy}")
    if (got := (tuple(made.batch_shape), tuple(made.event_shape))) != wanted:
        raise ValueError(
            f"likelihood {kind} must return batch shape {wanted[0]} and event shape {wanted[1]} for all classes after "
            f"one x, got {got[0]} and {got[1]}; {remedy}"
        )
