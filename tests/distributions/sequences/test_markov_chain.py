"""Chains of classes against the sum over all paths, one by one."""

from __future__ import annotations

import itertools
import math

import pyro
import pytest
import torch
from torch import Tensor
from torch.distributions.kl import kl_divergence
from torch.nn import functional as F

from dlvm.distributions import MarkovChain

STATES, STEPS = 3, 4
PATHS = F.one_hot(torch.tensor([*itertools.product(range(STATES), repeat=STEPS)]), STATES).double()


def chain(seed: int = 0, batch: tuple[int, ...] = (), by_step: bool = False, lengths: Tensor | None = None):
    torch.manual_seed(seed)
    behind = ((STEPS - 1,) if by_step else ()) + (STATES, STATES)
    shapes = (*batch, STATES), (*batch, *behind), (*batch, STEPS, STATES)
    return MarkovChain(*(torch.randn(shape).double() for shape in shapes), lengths=lengths, by_step=by_step)


def by_hand(found: MarkovChain, length: int) -> Tensor:
    """log of the product of all potentials of every path, one step after the other."""
    total = PATHS[:, 0] @ (found.initial + found.evidence[0])
    for t in range(1, length):
        move = found.transition[t - 1] if found.by_step else found.transition
        total = (
            total + torch.einsum("pi,ij,pj->p", PATHS[:, t - 1], move, PATHS[:, t]) + PATHS[:, t] @ found.evidence[t]
        )
    return total


@pytest.mark.parametrize("by_step", [False, True])
@pytest.mark.parametrize("length", [1, 3, STEPS])
def test_sums_marginals_mode_and_entropy_are_those_over_all_paths(length, by_step):
    found = chain(by_step=by_step, lengths=torch.tensor(length))
    log_p = by_hand(found, length)
    log_p = log_p - log_p.logsumexp(0)
    ahead = STATES ** (STEPS - length)  # paths that differ only behind the length
    close = {"atol": 1e-10, "rtol": 0}
    torch.testing.assert_close(found.log_prob(PATHS), log_p + math.log(ahead), **close)
    weight, within = log_p.exp(), torch.arange(STEPS) < length
    torch.testing.assert_close(found.marginals, torch.einsum("p,pti->ti", weight, PATHS) * within[:, None], **close)
    pairs = torch.einsum("p,pti,ptj->tij", weight, PATHS[:, :-1], PATHS[:, 1:]) * within[1:, None, None]
    torch.testing.assert_close(found.pair_marginals, pairs, **close)
    torch.testing.assert_close(found.mode[:length], PATHS[log_p.argmax()][:length])
    torch.testing.assert_close(found.entropy(), -(weight * log_p).sum() - math.log(ahead), **close)


def test_the_product_by_pairs_is_the_loop_and_so_are_its_gradients():
    torch.manual_seed(0)
    steps, lengths = 13, torch.tensor([1, 2, 7, 12, 13])
    parts = [torch.randn(s, dtype=torch.double, requires_grad=True) for s in ((3,), (3, 3), (5, steps, 3))]
    by_pairs, by_loop = (MarkovChain(*parts, lengths=lengths) for _ in range(2))
    assert by_loop.forward_sums.shape == (5, steps, 3)
    torch.testing.assert_close(by_pairs.log_normaliser, by_loop.log_normaliser)
    one, two = (torch.autograd.grad(each.log_normaliser.sum(), parts) for each in (by_pairs, by_loop))
    torch.testing.assert_close(one, two)
    torch.testing.assert_close(one[2], by_loop.marginals)  # the gradient in the evidence


def test_each_sequence_of_a_ragged_batch_is_as_alone_and_as_without_its_padding():
    lengths = torch.tensor([2, 4, 3])
    batch = chain(batch=(3,), lengths=lengths)
    for i, length in enumerate(lengths):
        alone = MarkovChain(batch.initial[i], batch.transition[i], batch.evidence[i, :length])
        torch.testing.assert_close(batch.log_normaliser[i], alone.log_normaliser)
        torch.testing.assert_close(batch.marginals[i, :length], alone.marginals)
        path = alone.sample()
        padded = F.pad(path, (0, 0, 0, STEPS - length))
        padded[length:, 0] = 1
        torch.testing.assert_close(batch.log_prob(padded.expand(3, -1, -1))[i], alone.log_prob(path))


def test_draws_have_the_frequencies_of_the_density():
    pyro.set_rng_seed(0)
    found = chain(lengths=torch.tensor(3))
    draws = found.sample((20000,))
    assert (draws[:, 3, 0] == 1).all()
    number = (draws[:, :3].argmax(-1) * torch.tensor([9, 3, 1])).sum(-1)
    share = torch.bincount(number, minlength=27) / len(draws)
    p = found.log_prob(PATHS[::3]).exp()
    assert ((share - p).abs() < 4 * (p * (1 - p) / len(draws)).sqrt() + 1e-6).all()


def test_the_divergence_of_two_chains_is_the_mean_over_paths():
    p, q = chain(0, by_step=True), chain(1)
    log_p, log_q = p.log_prob(PATHS), q.log_prob(PATHS)
    torch.testing.assert_close(kl_divergence(p, q), (log_p.exp() * (log_p - log_q)).sum())


def test_forbidden_moves_are_never_drawn_and_cost_no_nan():
    never = torch.tensor([[0.0, -torch.inf], [-1.0, 0.0]]).double().requires_grad_()
    found = MarkovChain(torch.zeros(2).double(), never, torch.zeros(20, 2).double())
    path = found.sample((200,))
    assert not ((path[:, :-1, 0] == 1) & (path[:, 1:, 1] == 1)).any()
    assert torch.autograd.grad(found.log_prob(path).sum(), never)[0].isfinite().all()
    assert found.entropy().isfinite() and found.marginals.isfinite().all()


def test_classes_far_below_the_best_are_not_lost():
    evidence = torch.zeros(2, 2)
    evidence[0, 1], evidence[1, 0] = -300.0, -800.0  # the first class is the likelier by 300 nats, then 800 less likely
    found = MarkovChain(torch.zeros(2), torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]]), evidence)
    torch.testing.assert_close(found.log_normaliser, torch.tensor(-300.0))


def test_expanding_and_broadcasting_keep_every_number():
    one = chain(by_step=True, lengths=torch.tensor(3))
    many = one.expand((2, 5))
    assert many.batch_shape == (2, 5) and many.sample((7,)).shape == (7, 2, 5, STEPS, STATES)
    torch.testing.assert_close(many.log_prob(PATHS[:5]), one.log_prob(PATHS[:5]).expand(2, 5))
    particles = MarkovChain(one.initial.expand(6, 1, 3), one.transition, one.evidence.expand(4, STEPS, 3), by_step=True)
    assert particles.batch_shape == (6, 4) == particles.log_normaliser.shape == particles.forward_sums.shape[:2]
    assert particles.marginals.shape == (6, 4, STEPS, STATES) == particles.mode.shape


@pytest.mark.parametrize(
    "change, words",
    [
        ({"initial": torch.zeros(2)}, "initial, transition and evidence must have shapes"),
        ({"transition": torch.zeros(2, 3, 3)}, None),
        ({"transition": torch.zeros(3, 2)}, "initial, transition and evidence must have shapes"),
        ({"lengths": torch.tensor([0, 2])}, "lengths must be from 1 to 4, .* got 0 to 2; leave empty sequences out"),
        ({"lengths": torch.tensor([5, 2])}, "lengths must be from 1 to 4, .* got 2 to 5; .* pad to the longest"),
    ],
)
def test_what_does_not_go_together_is_refused(change, words):
    settings = {"initial": torch.zeros(3), "transition": torch.zeros(3, 3), "evidence": torch.zeros(2, 4, 3)}
    if words is None:
        assert MarkovChain(**(settings | change)).batch_shape == (2,)
        return
    with pytest.raises(ValueError, match=words):
        MarkovChain(**(settings | change))
