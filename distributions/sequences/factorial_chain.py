"""Paths of several Markov chains side by side, which evidence ties to one another."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, reduce

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn import functional as F

from dlvm.distributions.sequences.lengths import Ragged, check_lengths
from dlvm.distributions.sequences.potentials import check_potentials, outer, pick, spread, times


class FactorialChain(Ragged):
    """Paths of C chains of one-hot classes, each of which moves by itself, weighed by evidence on all at once.

        p(z) = prod_c initial_c(z_1c) prod_t transition_c(z_t-1,c, z_tc) prod_t evidence_t(z_t1, ..., z_tC) / Z

    Of one chain it is ``MarkovChain``. Sums over paths go chain by chain: a step costs C K^(C+1), where the matrix
    between all K^C joint classes would cost K^2C. All is in log space and exact. Steps behind a sequence's length count
    nothing, and are drawn as the first classes.

    Args:
        initial: log-potentials of z_1, shape (*batch, C, K).
        transition: log-potentials from a class (row) to the next one (column), shape (*batch, C, K, K).
        evidence: log-potentials of each step, shape (*batch, T, K, ..., K) with C times K; -inf forbids.
        lengths: how many steps count, from 1 to T, shape (*batch,); all unless told.
        validate_args: as in every Pyro distribution.

    Raises:
        ValueError: shapes do not go together, or a length is below 1 or above T.

    References:
        Factorial Hidden Markov Models, Ghahramani, Jordan, 1997.

    Example:
        >>> half = torch.full((2, 3, 3), 1 / 3).log()
        >>> FactorialChain(half[:, 0], half, torch.zeros(5, 3, 3)).event_shape
        torch.Size([5, 2, 3])
    """

    arg_constraints: dict = {}
    support = constraints.independent(constraints.one_hot, 2)

    def __init__(
        self,
        initial: Tensor,
        transition: Tensor,
        evidence: Tensor,
        lengths: Tensor | None = None,
        validate_args: bool | None = None,
    ):
        chains, states, steps = _shapes(initial, transition, evidence)
        batch = [initial.shape[:-2], transition.shape[:-3], evidence.shape[: -chains - 1]]
        if lengths is not None:
            check_lengths(lengths, steps)
            batch.append(lengths.shape)
        self.initial, self.transition, self.evidence, self.lengths = initial, transition, evidence, lengths
        shape = torch.Size([steps, chains, states])
        super().__init__(torch.broadcast_shapes(*batch), shape, validate_args=validate_args)

    @property
    def chains(self) -> int:
        return self.event_shape[1]

    def at(self, t: int) -> Tensor:
        """Evidence of step t, from 0, shape (*batch, K, ..., K)."""
        return self.evidence.select(-self.chains - 1, t)

    def _counts(self, t: int) -> Tensor | None:
        """Whether step t counts, shape (*batch, 1, ..., 1)."""
        return (
            None if (within := self.within) is None else within[..., t].reshape(*within.shape[:-1], *[1] * self.chains)
        )

    def _moves(self) -> list[Tensor]:
        """Each chain's transition, shape (*batch, 1, ..., 1, K, K), with C - 1 ones."""
        ones = [1] * (self.chains - 1)
        return [m.reshape(*m.shape[:-2], *ones, *m.shape[-2:]) for m in self.transition.unbind(-3)]

    @cached_property
    def forward_sums(self) -> Tensor:
        """Log of the sum over paths up to each step that end in each joint class, shape (*batch, T, K, ..., K)."""
        sums, moves = [outer(self.initial) + self.at(0)], self._moves()
        for t in range(1, self.event_shape[0]):
            moved = sums[-1]
            for move in moves:  # the first chain moves on and comes last; after all of them, their order is as before
                moved = (moved.movedim(-self.chains, -1).unsqueeze(-1) + move).logsumexp(-2)
            moved = moved + self.at(t)
            counts = self._counts(t)
            sums.append(moved if counts is None else torch.where(counts, moved, sums[-1]))
        return torch.stack(torch.broadcast_tensors(*sums), -self.chains - 1)

    @cached_property
    def backward_sums(self) -> Tensor:
        """Log of the sum over what may follow each joint class at each step, shape (*batch, T, K, ..., K)."""
        sums, moves = [torch.zeros_like(self.at(-1))], self._moves()
        for t in reversed(range(self.event_shape[0] - 1)):
            moved = sums[-1] + self.at(t + 1)
            for move in moves:
                moved = (moved.movedim(-self.chains, -1).unsqueeze(-2) + move).logsumexp(-1)
            counts = self._counts(t + 1)
            sums.append(moved if counts is None else torch.where(counts, moved, sums[-1]))
        return torch.stack(torch.broadcast_tensors(*sums[::-1]), -self.chains - 1)

    @cached_property
    def log_normaliser(self) -> Tensor:
        """log Z, shape (*batch,)."""
        last = self.forward_sums.select(-self.chains - 1, -1)
        return last.flatten(-self.chains).logsumexp(-1)

    @property
    def joint_marginals(self) -> Tensor:
        """p(z_t1, ..., z_tC), shape (*batch, T, K, ..., K); zero behind a sequence's length."""
        ends = self.log_normaliser.reshape(*self.log_normaliser.shape, 1, *[1] * self.chains)
        found = (self.forward_sums + self.backward_sums - ends).exp()
        within = self.within
        return found if within is None else found * within.reshape(*within.shape, *[1] * self.chains)

    @property
    def marginals(self) -> Tensor:
        """p(z_tc) of each chain, shape (*batch, T, C, K); zero behind a sequence's length."""
        joint = self.joint_marginals
        dims = range(-self.chains, 0)
        others = [[d for d in dims if d != kept] for kept in dims]
        return torch.stack([joint.sum(away) if away else joint for away in others], -2)

    @property
    def pair_marginals(self) -> Tensor:
        """p(z_t-1,c, z_tc) of each chain, shape (*batch, T - 1, C, K, K); zero behind a sequence's length."""
        steps, chains, states = self.event_shape
        before = self.forward_sums.narrow(-chains - 1, 0, steps - 1)
        ahead = (self.evidence + self.backward_sums).narrow(-chains - 1, 1, steps - 1)
        moves, found = [move.unsqueeze(-chains - 2) for move in self._moves()], []
        for c, own in enumerate(self.transition.unbind(-3)):
            moved = before
            for other, move in enumerate(moves):  # all chains but this one move on
                first = moved.movedim(-chains, -1)
                moved = first if other == c else (first.unsqueeze(-1) + move).logsumexp(-2)
            one, two = (e.movedim(c - chains, -1).reshape(*e.shape[:-chains], -1, states) for e in (moved, ahead))
            pairs = (one.unsqueeze(-1) + two.unsqueeze(-2)).logsumexp(-3)
            found.append((pairs + own.unsqueeze(-3) - self.log_normaliser[..., None, None, None]).exp())
        pairs = torch.stack(torch.broadcast_tensors(*found), -3)
        return pairs if self.within is None else pairs * self.within[..., 1:, None, None, None]

    @property
    def mean(self) -> Tensor:
        return self.marginals

    def given(self, evidence: Tensor) -> FactorialChain:
        """The chains once more is known of each step: log-potentials of shape (*batch, T, K, ..., K) come on top."""
        moves = (self.initial, self.transition)
        return FactorialChain(*moves, self.evidence + evidence, self.lengths, validate_args=self._validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: FactorialChain | None = None) -> FactorialChain:
        batch, (steps, chains, states) = tuple(batch_shape), self.event_shape
        return FactorialChain(
            self.initial.expand(*batch, chains, states),
            self.transition.expand(*batch, chains, states, states),
            self.evidence.expand(*batch, steps, *[states] * chains),
            None if self.lengths is None else self.lengths.expand(batch),
            validate_args=self._validate_args,
        )

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            shape, (steps, chains, states) = (*sample_shape, *self.batch_shape), self.event_shape
            sums = self.forward_sums.expand(*shape, steps, *[states] * chains).flatten(-chains)
            drawn, within = (
                [self._of_each(pick(sums[..., -1, :]))],
                self.within,
            )  # sums stand still behind the last that counts
            columns = self.transition.mT.expand(*shape, chains, states, states)
            for t in reversed(range(steps - 1)):
                into = columns.gather(-2, drawn[-1][..., None, None].expand(*shape, chains, 1, states)).squeeze(-2)
                before = self._of_each(pick(sums[..., t, :] + outer(into).flatten(-chains)))
                drawn.append(before if within is None else torch.where(within[..., t + 1, None], before, drawn[-1]))
            return self._one_hot(torch.stack(drawn[::-1], -2))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        pairs = value[..., :-1, :, :].unsqueeze(-1) * value[..., 1:, :, :].unsqueeze(-2)
        moved = times(pairs, self.transition.unsqueeze(-4)).sum((-3, -2, -1))
        if (within := self.within) is not None:
            moved = moved * within[..., 1:]
        begun = times(value[..., 0, :, :], self.initial).sum((-2, -1))
        return begun + moved.sum(-1) + self.log_evidence(value) - self.log_normaliser

    def log_evidence(self, value: Tensor) -> Tensor:
        """log of the product of what each step has for evidence, shape (*batch,), linear in each chain's classes."""
        joint = reduce(torch.mul, spread(value))
        seen = times(joint, self.evidence).flatten(-self.chains).sum(-1)
        return (seen if self.within is None else seen * self.within).sum(-1)

    @property
    def mode(self) -> Tensor:
        """The most probable paths (Viterbi), shape (*batch, T, C, K): over joint classes, again chain by chain."""
        steps, chains, states = self.event_shape
        best = (outer(self.initial) + self.at(0)).expand(*self.batch_shape, *[states] * chains)
        came, moves = [], self._moves()
        for t in range(1, steps):
            moved, numbers = best, torch.zeros_like(best, dtype=torch.long)
            for move in moves:
                moved, origin = (moved.movedim(-chains, -1).unsqueeze(-1) + move).max(-2)
                numbers = numbers.movedim(-chains, -1).gather(-1, origin) * states + origin
            moved = moved + self.at(t)
            if (counts := self._counts(t)) is not None:
                moved = torch.where(counts, moved, best)
                numbers = torch.where(counts, numbers, torch.arange(states**chains).view([states] * chains).to(origin))
            best = moved
            came.append(numbers.flatten(-chains))
        path = [best.flatten(-chains).argmax(-1)]
        for origin in reversed(came):
            path.append(origin.gather(-1, path[-1].unsqueeze(-1)).squeeze(-1))
        return self._one_hot(self._of_each(torch.stack(path[::-1], -1)))

    def _of_each(self, number: Tensor) -> Tensor:
        """Each chain's class, shape (*shape, C), of the number of a joint one, the last chain's running fastest."""
        _, chains, states = self.event_shape
        powers = states ** torch.arange(chains - 1, -1, -1, device=number.device)
        return number.unsqueeze(-1) // powers % states

    def _one_hot(self, path: Tensor) -> Tensor:
        path = path if self.within is None else path * self.within.unsqueeze(-1)
        return F.one_hot(path, self.event_shape[2]).to(self.evidence.dtype)


def _shapes(initial: Tensor, transition: Tensor, evidence: Tensor) -> tuple[int, int, int]:
    """How many chains, states and steps; refuses potentials that do not go together."""
    check_potentials(initial=(initial, 2), transition=(transition, 3), evidence=(evidence, 2))
    chains, states = initial.shape[-2:]
    joint = (states,) * chains
    if (
        transition.shape[-3:] != (chains, states, states)
        or evidence.dim() <= chains
        or evidence.shape[-chains:] != joint
    ):
        raise ValueError(
            "initial, transition and evidence must have shapes (..., C, K), (..., C, K, K) and (..., T, K, ..., K), as "
            f"many K as chains, got {tuple(initial.shape)}, {tuple(transition.shape)} and {tuple(evidence.shape)}"
        )
    return chains, states, evidence.shape[-chains - 1]
