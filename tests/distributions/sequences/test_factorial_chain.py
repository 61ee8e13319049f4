"""Chains side by side against the one chain over their joint classes, and against every path of it."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from dlvm.distributions import FactorialChain, MarkovChain

CHAINS, STATES, STEPS = 3, 2, 4
JOINT = STATES**CHAINS
LENGTHS = torch.tensor([4, 2, 1])


def made(lengths: torch.Tensor | None = LENGTHS) -> FactorialChain:
    torch.manual_seed(0)
    initial, transition = torch.randn(CHAINS, STATES).double(), torch.randn(CHAINS, STATES, STATES).double()
    return FactorialChain(initial, transition, torch.randn(3, STEPS, *[STATES] * CHAINS).double(), lengths)


def whole(chain: FactorialChain) -> MarkovChain:
    """The chain over joint classes, by matrices that are products."""
    a, b, c = chain.initial
    initial = (a[:, None, None] + b[:, None] + c).flatten()
    moves = sum(m.view(*[STATES if d in (i, 3 + i) else 1 for d in range(6)]) for i, m in enumerate(chain.transition))
    return MarkovChain(initial, moves.reshape(JOINT, JOINT), chain.evidence.flatten(-CHAINS), chain.lengths)


def of_chains(joint: torch.Tensor) -> torch.Tensor:
    """Joint classes as those of each chain: the last one runs fastest."""
    number = joint.argmax(-1)
    each = torch.stack([number // 4, number // 2 % 2, number % 2], -1)
    return F.one_hot(each, STATES).to(joint.dtype)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_it_is_the_chain_over_joint_classes(lengths):
    chain = made(lengths)
    other = whole(chain)
    torch.testing.assert_close(chain.log_normaliser, other.log_normaliser)
    torch.testing.assert_close(chain.joint_marginals.flatten(-CHAINS), other.marginals)
    torch.testing.assert_close(chain.marginals[..., 1, 1], other.marginals[..., [2, 3, 6, 7]].sum(-1))
    pairs = other.pair_marginals.unflatten(-1, [STATES] * CHAINS).unflatten(-4, [STATES] * CHAINS)
    for c, found in enumerate(chain.pair_marginals.unbind(-3)):
        away = [d for d in range(-6, 0) if d not in (c - 6, c - 3)]
        torch.testing.assert_close(found, pairs.sum(away))
    joint = other.sample((50,))
    paths = of_chains(joint) if lengths is None else of_chains(joint) * 1.0
    torch.testing.assert_close(chain.log_prob(paths), other.log_prob(joint))
    torch.testing.assert_close(chain.mode, of_chains(other.mode))
    more = torch.randn_like(chain.evidence)
    torch.testing.assert_close(chain.given(more).log_normaliser, whole(chain.given(more)).log_normaliser)


def test_draws_have_the_marginals_of_pairs_and_of_joint_classes():
    chain = made()
    drawn = chain.sample((20_000,))
    assert (drawn.sum(-1) == 1).all() and drawn[:, 1, 2:, :, 0].all()  # behind the length: the first classes
    joint = torch.einsum("nbta,nbtc,nbtd->btacd", *drawn.unbind(-2)) / len(drawn)
    within = chain.within[..., None, None, None]
    spread = (chain.joint_marginals * (1 - chain.joint_marginals) / len(drawn)).sqrt()
    assert ((joint - chain.joint_marginals).abs() * within <= 5 * spread + 1e-12).all()
    pairs = torch.einsum("nbtci,nbtcj->btcij", drawn[:, :, :-1], drawn[:, :, 1:]) / len(drawn)
    expected, counts = chain.pair_marginals, chain.within[:, 1:, None, None, None]
    spread = (expected * (1 - expected) / len(drawn)).clamp_min(0).sqrt()
    assert ((pairs - expected).abs() * counts <= 5 * spread + 1e-12).all()


def test_one_chain_is_a_markov_chain_and_expansion_changes_nothing():
    torch.manual_seed(1)
    initial, transition, evidence = torch.randn(1, 3), torch.randn(1, 3, 3), torch.randn(5, 3)
    chain = FactorialChain(initial, transition, evidence)
    other = MarkovChain(initial[0], transition[0], evidence)
    torch.testing.assert_close(chain.log_normaliser, other.log_normaliser)
    torch.testing.assert_close(chain.marginals[:, 0], other.marginals)
    torch.testing.assert_close(chain.pair_marginals[:, 0], other.pair_marginals)
    wide = chain.expand((4,))
    path = wide.sample()
    assert path.shape == (4, 5, 1, 3)
    torch.testing.assert_close(wide.log_prob(path), chain.log_prob(path))


def test_shapes_that_do_not_go_together_are_refused():
    half = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"as many K as chains, got \(2, 3\), \(2, 3, 3\) and \(5, 3\)"):
        FactorialChain(half, torch.zeros(2, 3, 3), torch.zeros(5, 3))
    with pytest.raises(ValueError, match="lengths must be from 1 to 5"):
        FactorialChain(half, torch.zeros(2, 3, 3), torch.zeros(5, 3, 3), torch.tensor([6]))
