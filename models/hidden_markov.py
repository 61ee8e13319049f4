"""The hidden Markov model over sequences of several lengths, with every exact answer and EM."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import constraints

from dlvm.distributions import MarkovChain
from dlvm.distributions.sequences.lengths import Ragged, steps_within
from dlvm.models.arguments import fitting, sequences
from dlvm.models.mixture import Mixture
from dlvm.nets.arguments import count

LEAST = 1e-30  # of a probability; EM may find that a move never happens


class HiddenMarkov(PyroModule):
    """A class for each step, dependent on the last one; each class has its component of a mixture to emit from.

        p(x, z) = p(z_1) prod_t p(z_t | z_t-1) prod_t p(x_t | z_t),   z_t one-hot

    Of one step it is the mixture itself. Steps behind a sequence's length count nothing; a step that is NaN throughout
    is one that was not seen, and is summed out.

    Sites:
        z: shape (batch, steps, states), one-hot at each step; latent, and not there where it is summed out.
        x: shape (batch, steps, x_dim), where the components have their support; observed, or drawn where ``x=None``.

    Args:
        components: p(x_t | z_t); its weights are p(z_1).
        sum_out: whether the program has x alone, under its exact density; else z is a latent site.

    Raises:
        TypeError: ``components`` is no mixture.

    References:
        A Tutorial on Hidden Markov Models and Selected Applications in Speech Recognition, Rabiner, 1989.

    Example:
        >>> from dlvm.models import GaussianMixture
        >>> HiddenMarkov(GaussianMixture(3, 2, "diagonal"))(n=5, steps=7).shape
        torch.Size([5, 7, 2])
    """

    def __init__(self, components: Mixture, sum_out: bool = True):
        super().__init__("model")
        if not isinstance(components, Mixture):
            got = f"the class {components.__name__}" if isinstance(components, type) else type(components).__name__
            raise TypeError(f"components must be a mixture, got {got}; write BernoulliMixture(states, x_dim)")
        self.mixture, self.sum_out = components, sum_out
        self.transition_logits = nn.Parameter(torch.randn(components.components, components.components) / 2)

    @property
    def states(self) -> int:
        return self.mixture.components

    @property
    def transition(self) -> Tensor:
        """p(z_t | z_t-1), shape (states, states), a row for each z_t-1."""
        return self.transition_logits.softmax(-1)

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
        if x is None:
            count(n=n, steps=steps)
            rows = n
        else:
            rows, steps = self._checked(x, lengths)
        prior = self.prior(steps, lengths)
        with pyro.plate("data", rows):
            z = None if self.sum_out else pyro.sample("z", prior)
            likelihood = Emission(self, prior if z is not None else prior.expand((rows,)), z)
            return pyro.sample("x", likelihood, obs=fitting(x, likelihood))

    def prior(self, steps: int, lengths: Tensor | None = None) -> MarkovChain:
        """p(z), event shape (steps, states)."""
        logits = self.mixture.logits
        none = logits.new_zeros(steps, self.states)
        return MarkovChain(logits.log_softmax(-1), self.transition_logits.log_softmax(-1), none, lengths)

    def posterior(self, x: Tensor, lengths: Tensor | None = None) -> MarkovChain:
        """Exact p(z | x), whose ``log_normaliser`` is log p(x), for x of shape (batch, steps, x_dim)."""
        self._checked(x, lengths)
        if (bad := self._seen(x, lengths) & ~self.mixture.support.check(x)).any():
            raise ValueError(
                f"x has {int(bad.sum())} steps that no component can have produced, or that are NaN in part; a step "
                f"that was not seen is NaN throughout, all others must lie in {self.mixture.support}"
            )
        prior = self.prior(x.shape[1], lengths)
        return MarkovChain(prior.initial, prior.transition, self.log_emission(x, lengths), lengths)

    def guide(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The exact posterior as a program: every log-weight is log p(x)."""
        with pyro.plate("data", len(x)):
            return pyro.sample("z", self.posterior(x, lengths))

    def log_px(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Exact log p(x) in nats, shape (batch,), for x of shape (batch, steps, x_dim)."""
        return self.posterior(x, lengths).log_normaliser

    def log_emission(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """log p(x_t | z_t) for each class, shape (*batch, steps, states); 0 where a step was not seen."""
        seen = self._seen(x, lengths)
        rows = torch.where(seen.unsqueeze(-1), x, self.mixture.draw_of(torch.zeros((), dtype=torch.long)).to(x))
        each = self.mixture.log_components(rows.reshape(-1, x.shape[-1])).unflatten(0, x.shape[:-1])
        return torch.where(seen.unsqueeze(-1), each, 0)

    @torch.no_grad()
    def expected_statistics(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The E-step on some data (Baum, Welch): log p(x) of each, and sums over data that ``maximise`` takes."""
        posterior = self.posterior(x, lengths)
        shares, seen = posterior.marginals, self._seen(x, lengths)
        rows, of_rows = x[seen], shares[seen]
        of_components = self.mixture.component_statistics(rows, of_rows)
        sums = {"initial": shares[:, 0].sum(0), "moves": posterior.pair_marginals.sum((0, 1)), "counts": of_rows.sum(0)}
        return posterior.log_normaliser, sums | of_components

    @torch.no_grad()
    def maximise(self, statistics: dict[str, Tensor]) -> None:
        """The M-step: the parameters of highest expected log p(x, z), given the statistics of all data.

        Raises:
            ValueError: as ``Mixture.maximise``.
        """
        moves, initial = statistics["moves"], statistics["initial"]
        self.mixture.maximise(statistics)
        left = moves.sum(-1, keepdim=True)  # a class that is only ever the last has no moves, and keeps its row
        row = torch.where(left > 0, moves / left.clamp_min(LEAST), self.transition)
        self.transition_logits.copy_(row.clamp_min(LEAST).log())
        self.mixture.logits.copy_((initial / initial.sum()).clamp_min(LEAST).log())

    @torch.no_grad()
    def start_at(self, x: Tensor, lengths: Tensor | None = None) -> HiddenMarkov:
        """Starts at data: components at some steps that lie far apart; see ``Mixture.start_at``."""
        self._checked(x, lengths)
        self.mixture.start_at(x[self._seen(x, lengths)])
        return self

    def _seen(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Which steps count, shape (*batch, steps): those within the length that are not NaN."""
        seen = ~x.isnan().all(-1)
        return seen if lengths is None else seen & steps_within(lengths, x.shape[-2])

    def _checked(self, x: Tensor, lengths: Tensor | None) -> tuple[int, int]:
        """How many sequences and steps there are."""
        return sequences(x, lengths, self.mixture.x_dim, self.transition_logits.dtype)


class Emission(Ragged):
    """p(x | z), or p(x) where z is not given: at each step the component of its class.

    Args:
        model: whose components they are.
        prior: p(z), with the lengths of the sequences; of batch shape (*batch,).
        z: shape (*batch, steps, states), one-hot; summed out, exactly, where it is None.
        validate_args: as in every Pyro distribution.
    """

    arg_constraints: dict = {}

    def __init__(
        self, model: HiddenMarkov, prior: MarkovChain, z: Tensor | None = None, validate_args: bool | None = None
    ):
        self.model, self.prior, self.z, self.lengths = model, prior, z, prior.lengths
        batch = prior.batch_shape if z is None else z.shape[:-2]
        super().__init__(batch, torch.Size([prior.event_shape[0], model.mixture.x_dim]), validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        return UnseenOr(self.model.mixture.support)

    @property
    def mean(self) -> Tensor:
        return (self.prior.marginals if self.z is None else self.z) @ self.model.mixture.moments()[0]

    def expand(self, batch_shape: Sequence[int], _instance: Emission | None = None) -> Emission:
        z = None if self.z is None else self.z.expand(*batch_shape, *self.z.shape[-2:])
        return Emission(self.model, self.prior.expand(batch_shape), z, validate_args=self._validate_args)

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            z = self.prior.sample(sample_shape) if self.z is None else self.z.expand(*sample_shape, *self.z.shape)
            drawn, within = self.model.mixture.draw_of(z.argmax(-1)), self.within
            return drawn if within is None else drawn * within.unsqueeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        prior, each = self.prior, self.model.log_emission(value, self.prior.lengths)
        if self.z is None:
            return MarkovChain(prior.initial, prior.transition, each, prior.lengths).log_normaliser
        return (self.z * each).sum((-2, -1))


class UnseenOr(constraints.Constraint):
    """A support of each step, any of which may not have been seen, and is NaN throughout.

    Args:
        of_step: the support of a step.
    """

    is_discrete = property(lambda self: self.of_step.is_discrete)
    event_dim = 2

    def __init__(self, of_step: constraints.Constraint):
        self.of_step = of_step

    def check(self, value: Tensor) -> Tensor:
        return (self.of_step.check(value) | value.isnan().all(-1)).all(-1)
