"""Sequences whose steps show classes that follow one another unseen: what every such model answers exactly."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor
from torch.distributions import constraints

from dlvm.distributions import FactorialChain, MarkovChain
from dlvm.distributions.sequences.each_step import CountingSteps
from dlvm.distributions.sequences.lengths import Ragged, steps_within
from dlvm.models.arguments import fitting, sequences, sequences_to_draw
from dlvm.nets.arguments import count

Chain = MarkovChain | FactorialChain


class HiddenChain(PyroModule):
    """Classes z_1..z_T that follow one another unseen, and data that depend on them; every answer is known.

        p(x, z) = p(z_1) prod_t p(z_t | z_t-1) prod_t p(x_t | z_t, x_t-1),   z_t one-hot

    A kind of model adds what these are. Steps behind a sequence's length count nothing, whatever stands there.

    Sites:
        z: shape (batch, steps, states), one-hot at each step; latent, and not there where it is summed out.
        x: shape (batch, steps, x_dim); observed, or drawn where ``x=None``.

    Args:
        x_dim: number of observed variables.
        sum_out: whether the program has x alone, under its exact density; else z is a latent site.

    Raises:
        TypeError, ValueError: ``x_dim`` is no integer of at least 1.

    References:
        A Tutorial on Hidden Markov Models and Selected Applications in Speech Recognition, Rabiner, 1989.
    """

    def __init__(self, x_dim: int, sum_out: bool = True):
        super().__init__("model")
        count(x_dim=x_dim)
        self.x_dim, self.sum_out = x_dim, sum_out

    # What a kind of model says

    @property
    def step_support(self) -> constraints.Constraint:
        """Where x_t lies."""
        raise NotImplementedError(f"{type(self).__name__} must say where x_t lies")

    def prior(self, steps: int, lengths: Tensor | None = None) -> Chain:
        """p(z), event shape (steps, states)."""
        raise NotImplementedError(f"{type(self).__name__} must say how its classes follow one another")

    def log_emission(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """log p(x_t | z_t, x_t-1) for each class, shape (*batch, steps, states)."""
        raise NotImplementedError(f"{type(self).__name__} must say log p(x_t | z_t, x_t-1)")

    def draw(self, z: Tensor) -> Tensor:
        """x given z of shape (*batch, steps, states), shape (*batch, steps, x_dim)."""
        raise NotImplementedError(f"{type(self).__name__} must say how x is drawn")

    def mean_given(self, z: Tensor) -> Tensor:
        """E[x | z], shape (*batch, steps, x_dim), linear in z, so that means of z do as well."""
        raise NotImplementedError(f"{type(self).__name__} has no mean in closed form; average draws of model(n=1000)")

    # What all kinds share

    def forward(self, x: Tensor | None = None, lengths: Tensor | None = None, n: int = 1, steps: int = 1) -> Tensor:
        """Runs the program.

        Args:
            x: shape (batch, steps, x_dim), or None to draw.
            lengths: of the sequences, shape (batch,); ``steps`` for each unless told.
            n: how many sequences to draw where x is None.
            steps: of them.

        Returns:
            x.
        """
        n, steps = sequences_to_draw(n, steps, lengths) if x is None else self._checked(x, lengths)
        prior = self.prior(steps, lengths)
        with pyro.plate("data", n):
            z = None if self.sum_out else pyro.sample("z", prior)
            likelihood = Emission(self, prior if z is not None else prior.expand((n,)), z)
            return pyro.sample("x", likelihood, obs=fitting(x, likelihood))

    def posterior(self, x: Tensor, lengths: Tensor | None = None) -> Chain:
        """Exact p(z | x), for x of shape (batch, steps, x_dim).

        Its ``log_normaliser`` is log p(x), ``marginals`` are p(z_t | x), and ``mode`` is the most probable path.

        Raises:
            ValueError: x has another shape or type, or values that no class can have produced.
        """
        self._checked(x, lengths)
        self._check_values(x, lengths)
        return self.prior(x.shape[1], lengths).given(self.log_emission(x, lengths))

    def guide(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The exact posterior as a program: every log-weight is log p(x)."""
        with pyro.plate("data", len(x)):
            return pyro.sample("z", self.posterior(x, lengths))

    def log_px(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Exact log p(x) in nats, shape (batch,), for x of shape (batch, steps, x_dim)."""
        return self.posterior(x, lengths).log_normaliser

    def _checked(self, x: Tensor, lengths: Tensor | None) -> tuple[int, int]:
        """How many sequences and steps there are."""
        return sequences(x, lengths, self.x_dim, next(self.parameters()).dtype)

    def _check_values(self, x: Tensor, lengths: Tensor | None) -> None:
        """Refuses steps that no class can have produced."""
        bad = ~self.step_support.check(x)
        if (number := int((bad if lengths is None else bad & steps_within(lengths, x.shape[1])).sum())) > 0:
            raise ValueError(f"x has {number} steps that no class can have produced, or that are {self.unseen}")

    @property
    def unseen(self) -> str:
        """What a step that was not seen may not be, and what to do."""
        return f"NaN in part; a step that was not seen is NaN throughout, all must lie in {self.step_support}"


class Emission(Ragged):
    """p(x | z), or p(x) where z is not given: at each step what its class says.

    Args:
        model: whose classes they are.
        prior: p(z), with the lengths of the sequences; of batch shape (*batch,).
        z: shape (*batch, steps, states), one-hot; summed out, exactly, where it is None.
        validate_args: as in every Pyro distribution.
    """

    arg_constraints: dict = {}

    def __init__(self, model: HiddenChain, prior: Chain, z: Tensor | None = None, validate_args: bool | None = None):
        self.model, self.prior, self.z, self.lengths = model, prior, z, prior.lengths
        batch = prior.batch_shape if z is None else z.shape[: -len(prior.event_shape)]
        super().__init__(batch, torch.Size([prior.event_shape[0], model.x_dim]), validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        return CountingSteps(self.model.step_support, self.within)

    @property
    def mean(self) -> Tensor:
        return self.model.mean_given(self.prior.marginals if self.z is None else self.z)

    def expand(self, batch_shape: Sequence[int], _instance: Emission | None = None) -> Emission:
        z = None if self.z is None else self.z.expand(*batch_shape, *self.prior.event_shape)
        return type(self)(self.model, self.prior.expand(batch_shape), z, validate_args=self._validate_args)

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            z = self.prior.sample(sample_shape) if self.z is None else self.z.expand(*sample_shape, *self.z.shape)
            drawn, within = self.model.draw(z), self.within
            return drawn if within is None else drawn * within.unsqueeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        given = self.prior.given(self.model.log_emission(value, _shared(self.prior.lengths, value.dim() - 2)))
        return given.log_normaliser if self.z is None else given.log_evidence(self.z)


def _shared(lengths: Tensor | None, dims: int) -> Tensor | None:
    """Lengths without leading dimensions along which they were repeated and the data were not, as for particles."""
    while lengths is not None and lengths.dim() > dims and lengths.stride(0) == 0:
        lengths = lengths[0]
    return lengths
