"""The deep Markov model: a state space whose steps and emissions are nets."""

from __future__ import annotations

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from dlvm.distributions import ConditionalChain, EachStep, GatedTransition
from dlvm.distributions.sequences.steps import Steps, chain_steps
from dlvm.models.arguments import fitting, sequences_to_draw
from dlvm.nets.arguments import count, module


class DeepMarkov(PyroModule):
    """States of which each is made by a net of the one before it, and emits a step of the sequence.

        p(x, z) = prod_t p(z_t | z_t-1) p(x_t | z_t),   z_0 learned

    Given the states, steps of x are independent, and p(z) is written without x: all states are one site, whose density
    is computed at all steps at once, while drawing goes step by step. Steps behind a sequence's length count nothing;
    numbers that are NaN were not seen, and are summed out where the likelihood has independent dimensions.

    Sites:
        z: shape (batch, steps, z_dim), real; latent.
        x: shape (batch, steps, *event), where the likelihood has its support; observed, or drawn where ``x=None``.

    Args:
        z_dim: dimensions of a state.
        likelihood: p(x_t | z_t), from shape (*batch, z_dim), as ``Bernoulli(MLP(z_dim, 100, 100, 88))``.
        transition: p(z_t | z_t-1), from shape (*batch, z_dim) to a distribution of as many real numbers;
            ``GatedTransition(z_dim)`` unless told.

    Raises:
        TypeError: ``z_dim`` is no integer, or a net no module.
        ValueError: ``z_dim`` is below 1; when called, sequences, lengths and the likelihood do not go together.

    References:
        Structured Inference Networks for Nonlinear State Space Models, Krishnan, Shalit, Sontag, 2017,
            arXiv:1609.09869.
        An Introduction to Variational Autoencoders, Kingma, Welling, 2019, section 1.1, arXiv:1906.02691.

    Example:
        >>> from dlvm.distributions import Bernoulli
        >>> from dlvm.nets import MLP
        >>> DeepMarkov(2, Bernoulli(MLP(2, 8, 3)))(n=5, steps=7).shape
        torch.Size([5, 7, 3])
    """

    def __init__(self, z_dim: int, likelihood: nn.Module, transition: nn.Module | None = None):
        super().__init__("model")
        count(z_dim=z_dim)
        module(likelihood=likelihood, **({} if transition is None else {"transition": transition}))
        self.z_dim, self.emission = z_dim, likelihood
        self.transition = GatedTransition(z_dim) if transition is None else transition
        self.start = nn.Parameter(torch.zeros(z_dim))

    def forward(self, x: Tensor | None = None, lengths: Tensor | None = None, n: int = 1, steps: int = 1) -> Tensor:
        """Runs the program.

        Args:
            x: shape (batch, steps, *event), or None to draw.
            lengths: of the sequences, shape (batch,); ``steps`` for each unless told.
            n: how many sequences to draw where x is None.
            steps: of them.

        Returns:
            x.
        """
        if x is None:
            sequences_to_draw(n, steps, lengths)
        elif not isinstance(x, Tensor) or x.dim() < 2 or not x.numel():
            got = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"x must be a tensor of shape (batch, steps, ...), got {got}; one sequence is x[None]")
        else:
            n, steps = sequences_to_draw(x.shape[0], x.shape[1], lengths)
        with pyro.plate("data", n):
            z = pyro.sample("z", self.prior(steps, lengths))
            likelihood = self.likelihood(z, lengths)
            return pyro.sample("x", likelihood, obs=fitting(x, likelihood))

    def prior(self, steps: int, lengths: Tensor | None = None) -> ConditionalChain:
        """p(z), event shape (steps, z_dim)."""
        return ConditionalChain(self.transition, self.start, steps, lengths=lengths)

    def likelihood(self, z: Tensor, lengths: Tensor | None = None) -> EachStep:
        """p(x | z), event shape (steps, *event), for z of shape (*batch, steps, z_dim)."""
        return EachStep(self.emission(z), lengths)

    def stepwise(self, x: Tensor, lengths: Tensor | None = None) -> Steps:
        """The program one step at a time, for a particle filter; x has shape (batch, steps, *event)."""
        return chain_steps(self.prior(x.shape[1], lengths), self.emission, x)
