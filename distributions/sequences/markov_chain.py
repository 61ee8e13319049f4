"""Paths of a Markov chain of classes, weighed by evidence at every step: hidden states, a priori and given data."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.kl import register_kl
from torch.nn import functional as F

from dlvm.distributions.sequences.lengths import Ragged, check_lengths
from dlvm.distributions.sequences.potentials import check_potentials, pick, times

FEW = 4  # states; with so few, a product of matrices for each pair of steps costs less than a loop over steps


class MarkovChain(Ragged):
    """Paths z_1..z_T of one-hot classes, each dependent on the one before it.

        p(z) = initial(z_1) prod_t transition_t(z_t-1, z_t) prod_t evidence_t(z_t) / Z

    Potentials need not be normalised: with p(z_1), p(z_t | z_t-1) and p(x_t | z_t), ``log_normaliser`` is log p(x) of a
    hidden Markov model, and the distribution its posterior. All is in log space, exact, and in one loop over steps.
    Steps behind a sequence's length count nothing, and are drawn as the first class.

    Args:
        initial: log-potentials of z_1, shape (*batch, K).
        transition: log-potentials from a class (row) to the next one (column), shape (*batch, K, K) for all steps, or
            (*batch, T - 1, K, K) with ``by_step``.
        evidence: log-potentials of each step, shape (*batch, T, K); -inf forbids a class.
        lengths: how many steps count, from 1 to T, shape (*batch,); all unless told.
        by_step: whether transitions differ from step to step.
        validate_args: as in every Pyro distribution.

    Raises:
        ValueError: shapes do not go together, or a length is below 1 or above T.

    References:
        A Tutorial on Hidden Markov Models and Selected Applications in Speech Recognition, Rabiner, 1989.

    Example:
        >>> half = torch.full((2, 2), 0.5).log()
        >>> MarkovChain(half[0], half, torch.zeros(3, 2)).log_normaliser
        tensor(0.)
    """

    arg_constraints: dict = {}
    support = constraints.independent(constraints.one_hot, 1)

    def __init__(
        self,
        initial: Tensor,
        transition: Tensor,
        evidence: Tensor,
        lengths: Tensor | None = None,
        by_step: bool = False,
        validate_args: bool | None = None,
    ):
        behind = _shapes(initial, transition, evidence, by_step)
        steps, states = evidence.shape[-2:]
        batch = [initial.shape[:-1], transition.shape[:-behind], evidence.shape[:-2]]
        if lengths is not None:
            check_lengths(lengths, steps)
            batch.append(lengths.shape)
        self.initial, self.transition, self.evidence = initial, transition, evidence
        self.lengths, self.by_step = lengths, by_step
        super().__init__(torch.broadcast_shapes(*batch), torch.Size([steps, states]), validate_args=validate_args)

    def step(self, t: int) -> Tensor:
        """Log-potentials from step t to the next one, shape (*batch, K, K), t from 0."""
        return self.transition[..., t, :, :] if self.by_step else self.transition

    @cached_property
    def forward_sums(self) -> Tensor:
        """Log of the sum over paths up to each step that end in each class, shape (*batch, T, K)."""
        sums = [self.initial + self.evidence[..., 0, :]]
        within = self.within
        for t in range(1, self.event_shape[0]):
            moved = (sums[-1].unsqueeze(-1) + self.step(t - 1)).logsumexp(-2) + self.evidence[..., t, :]
            sums.append(moved if within is None else torch.where(within[..., t, None], moved, sums[-1]))
        return torch.stack(torch.broadcast_tensors(*sums), -2)

    @cached_property
    def backward_sums(self) -> Tensor:
        """Log of the sum over what may follow each class at each step, shape (*batch, T, K)."""
        sums = [torch.zeros_like(self.evidence[..., -1, :])]
        within = self.within
        for t in reversed(range(self.event_shape[0] - 1)):
            ahead = (sums[-1] + self.evidence[..., t + 1, :]).unsqueeze(-2)
            moved = (ahead + self.step(t)).logsumexp(-1)
            sums.append(moved if within is None else torch.where(within[..., t + 1, None], moved, sums[-1]))
        return torch.stack(torch.broadcast_tensors(*sums[::-1]), -2)

    @cached_property
    def log_normaliser(self) -> Tensor:
        """log Z, shape (*batch,)."""
        steps, states = self.event_shape
        if states > FEW or steps < 2 * FEW or "forward_sums" in self.__dict__:
            return self.forward_sums[..., -1, :].logsumexp(-1)
        return (self.initial + self.evidence[..., 0, :]).unsqueeze(-1).add(self._product()).logsumexp((-2, -1))

    def _product(self) -> Tensor:
        """Sum over paths from each first class to each last one, shape (*batch, K, K), by pairs of steps at once."""
        steps, states = self.event_shape
        moves = self.transition if self.by_step else self.transition.unsqueeze(-3)
        moves = moves + self.evidence[..., 1:, :].unsqueeze(-2)
        if self.within is not None:
            stay = torch.eye(states, dtype=moves.dtype, device=moves.device).log()
            moves = torch.where(self.within[..., 1:, None, None], moves, stay)
        while moves.shape[-3] > 1:
            even = moves.shape[-3] // 2 * 2
            pairs = _log_matmul(moves[..., :even:2, :, :], moves[..., 1:even:2, :, :])
            moves = torch.cat([pairs, moves[..., even:, :, :]], -3)
        return moves.squeeze(-3)

    def expand(self, batch_shape: Sequence[int], _instance: MarkovChain | None = None) -> MarkovChain:
        batch, (steps, states) = tuple(batch_shape), self.event_shape
        moves = ((steps - 1,) if self.by_step else ()) + (states, states)
        return MarkovChain(
            self.initial.expand(*batch, states),
            self.transition.expand(*batch, *moves),
            self.evidence.expand(*batch, steps, states),
            None if self.lengths is None else self.lengths.expand(batch),
            self.by_step,
            validate_args=self._validate_args,
        )

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            shape, (steps, states) = (*sample_shape, *self.batch_shape), self.event_shape
            sums = self.forward_sums.expand(*shape, steps, states)
            within = self.within
            drawn = [pick(sums[..., -1, :])]  # sums stand still behind the last step that counts
            for t in reversed(range(steps - 1)):
                before = pick(sums[..., t, :] + _into(self.step(t), drawn[-1]))
                drawn.append(before if within is None else torch.where(within[..., t + 1], before, drawn[-1]))
            path = torch.stack(drawn[::-1], -1)
            path = path if within is None else path * within
            return F.one_hot(path, states).to(self.evidence.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self.log_potential(value) - self.log_normaliser

    def log_potential(self, value: Tensor) -> Tensor:
        """log of the product of all potentials, shape (*batch,), for paths, or for their marginals, as expectations."""
        pairs = value[..., :-1, :].unsqueeze(-1) * value[..., 1:, :].unsqueeze(-2)
        return self._potential(value, pairs)

    def _potential(self, singles: Tensor, pairs: Tensor) -> Tensor:
        moved = times(pairs, self.transition if self.by_step else self.transition.unsqueeze(-3)).sum((-2, -1))
        if (within := self.within) is not None:
            moved = moved * within[..., 1:]
        return times(singles[..., 0, :], self.initial).sum(-1) + self.log_evidence(singles) + moved.sum(-1)

    def given(self, evidence: Tensor) -> MarkovChain:
        """The chain once more is known of each step: log-potentials of shape (*batch, T, K) come on top."""
        moves = (self.initial, self.transition)
        return MarkovChain(*moves, self.evidence + evidence, self.lengths, self.by_step, self._validate_args)

    def log_evidence(self, value: Tensor) -> Tensor:
        """log of the product of what each step has for evidence, shape (*batch,), linear in one-hot classes."""
        seen = times(value, self.evidence).sum(-1)
        return (seen if self.within is None else seen * self.within).sum(-1)

    @property
    def marginals(self) -> Tensor:
        """p(z_t), shape (*batch, T, K); zero behind a sequence's length."""
        found = (self.forward_sums + self.backward_sums - self.log_normaliser[..., None, None]).exp()
        return found if self.within is None else found * self.within.unsqueeze(-1)

    @property
    def mean(self) -> Tensor:
        return self.marginals

    @property
    def pair_marginals(self) -> Tensor:
        """p(z_t-1, z_t), shape (*batch, T - 1, K, K); zero behind a sequence's length."""
        moves = self.transition if self.by_step else self.transition.unsqueeze(-3)
        ahead = (self.evidence + self.backward_sums)[..., 1:, :].unsqueeze(-2)
        found = (
            self.forward_sums[..., :-1, :].unsqueeze(-1) + moves + ahead - self.log_normaliser[..., None, None, None]
        )
        found = found.exp()
        return found if self.within is None else found * self.within[..., 1:, None, None]

    @property
    def mode(self) -> Tensor:
        """The most probable path (Viterbi), shape (*batch, T, K)."""
        steps, states = self.event_shape
        best, came, within = self.initial + self.evidence[..., 0, :], [], self.within
        best, stay = best.expand(*self.batch_shape, states), torch.arange(states, device=best.device)
        for t in range(1, steps):
            moved, origin = (best.unsqueeze(-1) + self.step(t - 1)).max(-2)
            moved = moved + self.evidence[..., t, :]
            if within is not None:
                counts = within[..., t, None]
                moved, origin = torch.where(counts, moved, best), torch.where(counts, origin, stay)
            best = moved
            came.append(origin)
        path = [best.argmax(-1)]
        for origin in reversed(came):
            path.append(origin.gather(-1, path[-1].unsqueeze(-1)).squeeze(-1))
        found = torch.stack(path[::-1], -1)
        found = found if within is None else found * within
        return F.one_hot(found, states).to(self.evidence.dtype)

    def entropy(self) -> Tensor:
        return self.log_normaliser - self._potential(self.marginals, self.pair_marginals)


@register_kl(MarkovChain, MarkovChain)
def _kl(p: MarkovChain, q: MarkovChain) -> Tensor:
    singles, pairs = p.marginals, p.pair_marginals
    return p._potential(singles, pairs) - p.log_normaliser - q._potential(singles, pairs) + q.log_normaliser


def _shapes(initial: Tensor, transition: Tensor, evidence: Tensor, by_step: bool) -> int:
    """How many dimensions of the transition are no batch's; refuses potentials that do not go together."""
    check_potentials(initial=(initial, 1), transition=(transition, 2), evidence=(evidence, 2))
    steps, states = evidence.shape[-2:]
    behind = ((steps - 1,) if by_step else ()) + (states, states)
    if initial.shape[-1:] != (states,) or transition.shape[-len(behind) :] != behind:
        moves = ", ".join(map(str, behind))
        raise ValueError(
            f"initial, transition and evidence must have shapes (..., {states}), (..., {moves}) and (..., {steps}, "
            f"{states}), got {tuple(initial.shape)}, {tuple(transition.shape)} and {tuple(evidence.shape)}"
        )
    return len(behind)


def _log_matmul(a: Tensor, b: Tensor) -> Tensor:
    """log(exp(a) @ exp(b)), in log space."""
    return (a.unsqueeze(-1) + b.unsqueeze(-3)).logsumexp(-2)


def _into(transition: Tensor, state: Tensor) -> Tensor:
    """The column of each state, shape (*shape, K), of a matrix of shape (*batch, K, K)."""
    columns = transition.mT.expand(*state.shape, *transition.shape[-2:])
    return columns.gather(-2, state[..., None, None].expand(*state.shape, 1, transition.shape[-1])).squeeze(-2)
