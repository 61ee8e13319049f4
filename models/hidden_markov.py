"""The hidden Markov model over sequences of several lengths, with every exact answer and EM."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from dlvm.distributions import MarkovChain
from dlvm.distributions.sequences.lengths import steps_within
from dlvm.models.hidden_chain import HiddenChain
from dlvm.models.mixture import Mixture

LEAST = 1e-30  # of a probability; EM may find that a move never happens


class HiddenMarkov(HiddenChain):
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
        if not isinstance(components, Mixture):
            got = f"the class {components.__name__}" if isinstance(components, type) else type(components).__name__
            raise TypeError(f"components must be a mixture, got {got}; write BernoulliMixture(states, x_dim)")
        super().__init__(components.x_dim, sum_out)
        self.mixture = components
        self.transition_logits = nn.Parameter(torch.randn(components.components, components.components) / 2)

    @property
    def states(self) -> int:
        return self.mixture.components

    @property
    def transition(self) -> Tensor:
        """p(z_t | z_t-1), shape (states, states), a row for each z_t-1."""
        return self.transition_logits.softmax(-1)

    @property
    def step_support(self) -> constraints.Constraint:
        return UnseenOr(self.mixture.support)

    def prior(self, steps: int, lengths: Tensor | None = None) -> MarkovChain:
        """p(z), event shape (steps, states)."""
        logits = self.mixture.logits
        none = logits.new_zeros(steps, self.states)
        return MarkovChain(logits.log_softmax(-1), self.transition_logits.log_softmax(-1), none, lengths)

    def draw(self, z: Tensor) -> Tensor:
        return self.mixture.draw_of(z.argmax(-1))

    def mean_given(self, z: Tensor) -> Tensor:
        return z @ self.mixture.moments()[0]

    def log_emission(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """log p(x_t | z_t) for each class, shape (*batch, steps, states); 0 where a step was not seen."""
        return log_emission(self.mixture, x, lengths)

    def imputed(self, x: Tensor, lengths: Tensor | None = None, num_draws: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """What x is at steps that were not seen, given those that were, exactly: see ``Imputing``."""
        posterior = self.posterior(x, lengths)
        return *moments_of(self.mixture, posterior.marginals), self.draw(posterior.sample((num_draws,)))

    @torch.no_grad()
    def expected_statistics(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The E-step on some data (Baum, Welch): log p(x) of each, and sums over data that ``maximise`` takes."""
        posterior = self.posterior(x, lengths)
        shares, counts = posterior.marginals, seen(x, lengths)
        rows, of_rows = x[counts], shares[counts]
        of_components = self.mixture.component_statistics(rows, of_rows)
        sums = {"initial": shares[:, 0].sum(0), "moves": posterior.pair_marginals.sum((0, 1)), "counts": of_rows.sum(0)}
        return posterior.log_normaliser, sums | of_components

    @torch.no_grad()
    def maximise(self, statistics: dict[str, Tensor]) -> None:
        """The M-step: the parameters of highest expected log p(x, z), given the statistics of all data.

        Raises:
            ValueError: as ``Mixture.maximise``.
        """
        self.mixture.maximise(statistics)
        self.transition_logits.copy_(log_moves(statistics["moves"], self.transition))
        self.mixture.logits.copy_(log_shares(statistics["initial"]))

    @torch.no_grad()
    def start_at(self, x: Tensor, lengths: Tensor | None = None) -> HiddenMarkov:
        """Starts at data: components at some steps that lie far apart; see ``Mixture.start_at``."""
        self._checked(x, lengths)
        self.mixture.start_at(x[seen(x, lengths)])
        return self


def log_moves(moves: Tensor, before: Tensor) -> Tensor:
    """log p(z_t | z_t-1) of highest expected log-likelihood, for expected numbers of moves, shape (..., K, K)."""
    left = moves.sum(-1, keepdim=True)  # a class that is only ever the last has no moves, and keeps its row
    return torch.where(left > 0, moves / left.clamp_min(LEAST), before).clamp_min(LEAST).log()


def log_shares(number: Tensor) -> Tensor:
    """log of the share of each class, for their expected numbers, shape (..., K)."""
    return (number / number.sum(-1, keepdim=True)).clamp_min(LEAST).log()


def moments_of(mixture: Mixture, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of x, each (*batch, x_dim), for the components' shares, shape (*batch, components)."""
    means, variances = mixture.moments()
    mean = shares @ means
    return mean, (shares.unsqueeze(-1) * (variances + (means - mean.unsqueeze(-2)).square())).sum(-2)


def seen(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Which steps count, shape (*batch, steps): those within the length that are not NaN."""
    found = ~x.isnan().all(-1)
    return found if lengths is None else found & steps_within(lengths, x.shape[-2])


def log_emission(mixture: Mixture, x: Tensor, lengths: Tensor | None) -> Tensor:
    """log p_k(x_t) of each component, shape (*batch, steps, components); 0 where a step was not seen."""
    counts = seen(x, lengths).unsqueeze(-1)
    rows = torch.where(counts, x, mixture.draw_of(torch.zeros((), dtype=torch.long)).to(x))
    each = mixture.log_components(rows.reshape(-1, x.shape[-1])).unflatten(0, rows.shape[:-1])
    return torch.where(counts, each, 0)


class UnseenOr(constraints.Constraint):
    """A support of a step, which may not have been seen, and is NaN throughout.

    Args:
        of_step: the support of a step that was seen.
    """

    is_discrete = property(lambda self: self.of_step.is_discrete)
    event_dim = 1

    def __init__(self, of_step: constraints.Constraint):
        self.of_step = of_step

    def check(self, value: Tensor) -> Tensor:
        return self.of_step.check(value) | value.isnan().all(-1)

    def __repr__(self) -> str:
        return f"{self.of_step!r}, or NaN throughout"
