"""The factorial hidden Markov model: several classes at each step, each of which moves by itself."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from dlvm.distributions import FactorialChain
from dlvm.distributions.sequences.potentials import spread
from dlvm.models.hidden_chain import HiddenChain
from dlvm.models.hidden_markov import UnseenOr, log_emission, log_moves, log_shares, moments_of, seen
from dlvm.models.mixture import Mixture
from dlvm.nets.arguments import count


class FactorialHMM(HiddenChain):
    """Several classes for each step, each dependent on its own last one; together they choose what is seen.

        p(x, z) = prod_c [p(z_1c) prod_t p(z_tc | z_t-1,c)] prod_t p(x_t | z_t1, ..., z_tC),   z_tc one-hot

    Each joint class has its component of a mixture to emit from. Chains that are independent a priori are not given x;
    the sum over their paths is exact, over joint classes at each step and chain by chain between steps, so that no
    matrix between joint classes is ever made. A step that is NaN throughout was not seen, and is summed out.

    Sites:
        z: shape (batch, steps, chains, states), one-hot for each step and chain; latent, and not there where it is
            summed out.
        x: shape (batch, steps, x_dim), where the components have their support; observed, or drawn where ``x=None``.

    Args:
        chains: how many classes a step has.
        states: how many values each of them has.
        components: p(x_t | z_t), a mixture of states^chains components, the last chain's class running fastest; its
            own weights are not used.
        sum_out: whether the program has x alone, under its exact density; else z is a latent site.

    Raises:
        TypeError: a number is no integer, or ``components`` no mixture.
        ValueError: a number is below 1, or the components are more or fewer.

    References:
        Factorial Hidden Markov Models, Ghahramani, Jordan, 1997.

    Example:
        >>> from dlvm.models import BernoulliMixture
        >>> FactorialHMM(2, 3, BernoulliMixture(9, 4))(n=5, steps=7).shape
        torch.Size([5, 7, 4])
    """

    def __init__(self, chains: int, states: int, components: Mixture, sum_out: bool = True):
        count(chains=chains, states=states)
        if not isinstance(components, Mixture):
            got = f"the class {components.__name__}" if isinstance(components, type) else type(components).__name__
            raise TypeError(f"components must be a mixture, got {got}; write BernoulliMixture(states**chains, x_dim)")
        if components.components != states**chains:
            raise ValueError(
                f"components must be states^chains = {states**chains}, one for each joint class, got "
                f"{components.components}"
            )
        super().__init__(components.x_dim, sum_out)
        self.chains, self.states, self.mixture = chains, states, components
        self.mixture.logits.requires_grad_(False)  # the weights of joint classes are those of the chains
        self.initial_logits = nn.Parameter(torch.randn(chains, states) / 2)
        self.transition_logits = nn.Parameter(torch.randn(chains, states, states) / 2)

    @property
    def transition(self) -> Tensor:
        """p(z_tc | z_t-1,c), shape (chains, states, states), a row for each z_t-1,c."""
        return self.transition_logits.softmax(-1)

    @property
    def step_support(self) -> constraints.Constraint:
        return UnseenOr(self.mixture.support)

    def prior(self, steps: int, lengths: Tensor | None = None) -> FactorialChain:
        """p(z), event shape (steps, chains, states)."""
        none = self.initial_logits.new_zeros(steps, *[self.states] * self.chains)
        moves = self.initial_logits.log_softmax(-1), self.transition_logits.log_softmax(-1)
        return FactorialChain(*moves, none, lengths)

    def joint(self, z: Tensor) -> Tensor:
        """The weights of joint classes, shape (*batch, components), for z of shape (*batch, chains, states)."""
        return reduce(torch.mul, spread(z)).flatten(-self.chains)

    def draw(self, z: Tensor) -> Tensor:
        return self.mixture.draw_of(self.joint(z).argmax(-1))

    def mean_given(self, z: Tensor) -> Tensor:
        """At one-hot z, or where chains are independent, as they are a priori."""
        return self.joint(z) @ self.mixture.moments()[0]

    def log_emission(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """log p(x_t | z_t) for each joint class, shape (*batch, steps, states, ..., states); 0 where none was seen."""
        return log_emission(self.mixture, x, lengths).unflatten(-1, [self.states] * self.chains)

    def imputed(self, x: Tensor, lengths: Tensor | None = None, num_draws: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """What x is at steps that were not seen, given those that were, exactly: see ``Imputing``."""
        posterior = self.posterior(x, lengths)
        shares = posterior.joint_marginals.flatten(-self.chains)
        return *moments_of(self.mixture, shares), self.draw(posterior.sample((num_draws,)))

    @torch.no_grad()
    def expected_statistics(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The E-step on some data, exact: log p(x) of each, and sums over data that ``maximise`` takes."""
        posterior = self.posterior(x, lengths)
        counts = seen(x, lengths)
        shares = posterior.joint_marginals.flatten(-self.chains)[counts]
        sums = {
            "initial": posterior.marginals[:, 0].sum(0),
            "moves": posterior.pair_marginals.sum((0, 1)),
            "counts": shares.sum(0),
        }
        return posterior.log_normaliser, sums | self.mixture.component_statistics(x[counts], shares)

    @torch.no_grad()
    def maximise(self, statistics: dict[str, Tensor]) -> None:
        """The M-step: the parameters of highest expected log p(x, z), given the statistics of all data.

        Raises:
            ValueError: as ``Mixture.maximise``.
        """
        self.mixture.maximise(statistics)
        self.transition_logits.copy_(log_moves(statistics["moves"], self.transition))
        self.initial_logits.copy_(log_shares(statistics["initial"]))

    @torch.no_grad()
    def start_at(self, x: Tensor, lengths: Tensor | None = None) -> FactorialHMM:
        """Starts at data: components at some steps that lie far apart; see ``Mixture.start_at``."""
        self._checked(x, lengths)
        self.mixture.start_at(x[seen(x, lengths)])
        return self
