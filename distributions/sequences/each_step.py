"""What is seen at each step of a sequence, given latent states: steps are independent, and some may be missing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints

from dlvm.distributions.likelihoods.missing import PartlyObserved
from dlvm.distributions.sequences.lengths import Ragged, check_lengths
from dlvm.distributions.supports import inner


class EachStep(Ragged):
    """Sequences whose steps are independent, each by its own distribution: p(x | z) of a state space model.

        p(x_1..x_T) = prod_t p(x_t)

    Numbers that are NaN were not seen and are summed out, where the numbers of a step are independent as well; else
    they are refused. Steps behind a sequence's length count nothing, whatever stands there, and are drawn as 0.

    Args:
        steps: the distribution of all steps, of batch shape (*batch, T); what a likelihood makes of z, shape
            (*batch, T, D).
        lengths: how many steps count, from 1 to T, shape (*batch,); all unless told.
        validate_args: as in every Pyro distribution.

    Raises:
        TypeError: ``steps`` is no distribution.
        ValueError: it has no batch dimension, or lengths do not go with it.

    Example:
        >>> import pyro.distributions as dist
        >>> EachStep(dist.Normal(torch.zeros(5, 3, 2), 1.0).to_event(1)).event_shape
        torch.Size([3, 2])
    """

    arg_constraints: dict = {}

    def __init__(self, steps: Distribution, lengths: Tensor | None = None, validate_args: bool | None = None):
        if not isinstance(steps, Distribution):
            raise TypeError(f"steps must be a distribution, got {type(steps).__name__}; pass likelihood(z)")
        if not steps.batch_shape:
            raise ValueError(
                f"steps must have batch shape (..., T), a distribution for each step, got () and event shape "
                f"{tuple(steps.event_shape)}; declare the dimensions of one step alone with to_event"
            )
        *batch, last = steps.batch_shape
        if lengths is not None:
            check_lengths(lengths, last)
            batch = list(torch.broadcast_shapes(batch, lengths.shape))
            steps = steps if steps.batch_shape == (*batch, last) else steps.expand((*batch, last))
        self.steps, self.lengths = steps, lengths
        super().__init__(torch.Size(batch), torch.Size([last, *steps.event_shape]), validate_args=validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]  # a property, as in Independent
        return self.steps.has_rsample

    @property
    def support(self) -> constraints.Constraint:
        if (of_step := self._seen.support) is None:
            raise NotImplementedError(f"{type(self.steps).__name__} states no support to hold steps against")
        return CountingSteps(of_step, self.within)

    @property
    def _seen(self) -> Distribution:
        """The steps, with NaN for what was not seen, where that can be summed out."""
        single = inner(self.steps)
        if single.event_shape or not isinstance(self.steps, Independent) or isinstance(single, PartlyObserved):
            return self.steps
        return PartlyObserved(single, validate_args=self._validate_args).to_event(len(self.steps.event_shape))

    @property
    def mean(self) -> Tensor:
        return self._blank(self.steps.mean)

    @property
    def variance(self) -> Tensor:
        return self._blank(self.steps.variance)

    def _blank(self, value: Tensor) -> Tensor:
        """Zeros where no step counts."""
        return value if (within := self.within) is None else torch.where(self._over_events(within), value, 0)

    def _over_events(self, of_steps: Tensor) -> Tensor:
        return of_steps.reshape(of_steps.shape + (1,) * len(self.steps.event_shape))

    def densities(self, value: Tensor) -> Tensor:
        """log p(x_t) of each step, shape (*shape, T), for x of shape (*shape, T, *event); 0 where none counts."""
        within = self.within
        if (
            within is not None
        ):  # the first step always counts: whatever stands behind the last one, it is in the support
            first = value.narrow(value.dim() - len(self.event_shape), 0, 1)
            value = torch.where(self._over_events(within), value, first)
        each = self._seen.log_prob(value)
        return each if within is None else torch.where(within, each, 0)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self.densities(value).sum(-1)

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            return self._blank(self.steps.sample(torch.Size(sample_shape)))

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        return self._blank(self.steps.rsample(torch.Size(sample_shape)))

    def expand(self, batch_shape: Sequence[int], _instance: EachStep | None = None) -> EachStep:
        batch = tuple(batch_shape)
        lengths = None if self.lengths is None else self.lengths.expand(batch)
        return EachStep(self.steps.expand((*batch, self.event_shape[0])), lengths, validate_args=self._validate_args)


class CountingSteps(constraints.Constraint):
    """A support of each step, where the step counts.

    Args:
        of_step: the support of a step.
        within: whether a step counts, shape (*batch, T); all unless told.
    """

    is_discrete = property(lambda self: self.of_step.is_discrete)
    event_dim = property(lambda self: self.of_step.event_dim + 1)

    def __init__(self, of_step: constraints.Constraint, within: Tensor | None = None):
        self.of_step = of_step
        # With the dimensions of an event, so that it is seen to be another for each datum.
        self.within = None if within is None else within.reshape(within.shape + (1,) * of_step.event_dim)

    def check(self, value: Tensor) -> Tensor:
        found = self.of_step.check(value)
        if self.within is None:
            return found.all(-1)
        within = self.within.reshape(self.within.shape[: self.within.dim() - self.of_step.event_dim])
        return (found | ~within).all(-1)
