"""Sentences against loops over tokens, against the sum over all of them, and against their own draws."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from dlvm.distributions import Sentences
from dlvm.nets import CausalGRU, CausalTCN, CausalTransformer

TOKENS, STEPS, WIDTH = 3, 4, 6
NETS = {"gru": lambda context: CausalGRU(TOKENS, WIDTH, 2, context), "tcn": lambda c: CausalTCN(TOKENS, WIDTH, 2, 2, c)}
EVERY = torch.tensor([*itertools.product(range(TOKENS), repeat=STEPS)])
LENGTHS = torch.tensor([4, 1, 3])
X = torch.tensor([[1, 2, 2, 1], [0, 9, -1, 9], [1, 1, 0, -100]])


@pytest.fixture(params=NETS)
def likelihood(request) -> Sentences:
    torch.manual_seed(0)
    return Sentences(NETS[request.param](5), nn.Linear(2, 5)).double()


def conditionals(likelihood: Sentences, z: torch.Tensor, before: list[int]) -> torch.Tensor:
    """log p(next token | those before, z), by what the net says of so many tokens alone."""
    value = torch.tensor([[*before, 0]])
    return likelihood.net(value, likelihood.decoder(z)[None])[0, -1].log_softmax(-1)


def test_the_density_is_that_of_a_loop_token_by_token(likelihood):
    z = torch.randn(2).double()
    for row in EVERY[::11].tolist():
        kept = row[: row.index(0) + 1] if 0 in row else row
        looped = sum(conditionals(likelihood, z, kept[:t])[token] for t, token in enumerate(kept))
        value = torch.tensor([kept + [0] * (STEPS - len(kept))])
        torch.testing.assert_close(likelihood(z, steps=STEPS).log_prob(value)[0], looped)


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("end", [0, 2, None])
def test_all_sentences_have_the_probability_one(likelihood, steps, end):
    likelihood.end = end
    p = likelihood(torch.randn(2).double(), steps=steps)
    every = torch.tensor([*itertools.product(range(TOKENS), repeat=steps)])
    possible = every[p.support.check(every)]
    assert len(possible) == (3**steps if end is None else 2 ** (steps + 1) - 1)
    assert p.log_prob(possible).exp().sum().item() == pytest.approx(1.0)


def test_draws_are_as_frequent_as_the_density_says(likelihood):
    p = likelihood(torch.randn(2).double(), steps=3)
    every = EVERY[:, 1:].unique(dim=0)
    every = every[p.support.check(every)]
    drawn = p.sample((8_000,))
    assert p.support.check(drawn).all()
    share = (drawn[:, None] == every).all(-1).double().mean(0)
    expected = p.log_prob(every).exp()
    error = (expected * (1 - expected) / len(drawn)).sqrt()
    assert ((share - expected).abs() < 4 * error).all()
    assert share.sum() == 1


def test_a_ragged_batch_is_each_sentence_alone_and_what_lies_behind_does_not_count(likelihood):
    z = torch.randn(5, 3, 2).double()
    p = likelihood(z, steps=STEPS, lengths=LENGTHS)
    alone = [likelihood(z[:, i], steps=int(n)).log_prob(X[i, :n]) for i, n in enumerate(LENGTHS)]
    torch.testing.assert_close(p.log_prob(X), torch.stack(alone, -1))
    torch.testing.assert_close(p.densities(X).sum(-1), p.log_prob(X))
    assert torch.equal(p.event_mask[0], torch.arange(STEPS) < LENGTHS[:, None])
    assert (p.sample()[~p.event_mask] == 0).all()


def test_a_sentence_that_goes_on_behind_its_end_is_outside_the_support(likelihood):
    p = likelihood(torch.zeros(2).double(), steps=STEPS)
    with pytest.raises(ValueError, match="support"):
        p.log_prob(torch.tensor([[1, 0, 1, 0]]))
    assert p.support.check(torch.tensor([[1, 0, 0, 0], [1, 2, 1, 2], [1, 3, 0, 0]])).tolist() == [True, True, False]


def test_the_convolution_sees_no_further_than_its_reach():
    torch.manual_seed(0)
    net = CausalTCN(5, WIDTH, layers=2, size=2)
    x, steps = torch.randint(5, (1, 9)), torch.arange(9)
    changed = torch.stack([net(torch.where(steps == t, (x + 1) % 5, x))[0, -1] for t in range(9)])
    same = (changed == net(x)[0, -1]).all(-1)
    assert net.reach == 3
    assert same.tolist() == [True] * 4 + [False] * 4 + [True]  # what is to be told, and what lies 4 back and more


def test_word_dropout_changes_training_alone_and_hides_only_tokens(likelihood):
    z, x = torch.zeros(2).double(), torch.ones(400, STEPS).long()
    plain = likelihood(z, steps=STEPS).densities(x)
    likelihood.drop = 0.3
    torch.testing.assert_close(likelihood.eval()(z, steps=STEPS).densities(x), plain)
    hidden = likelihood.train()(z, steps=STEPS).densities(x)
    torch.testing.assert_close(hidden[:, 0], plain[:, 0])  # the start is no token
    share = (hidden[:, 1] != plain[:, 1]).double().mean()
    assert abs(share - 0.3) < 4 * (0.3 * 0.7 / 400) ** 0.5
    unknown = likelihood.net(torch.tensor([[TOKENS, 0]]), likelihood.decoder(z)).log_softmax(-1)[0, 1, 1]
    changed = hidden[hidden[:, 1] != plain[:, 1], 1]
    torch.testing.assert_close(changed, unknown.expand_as(changed))


def test_the_likeliest_tokens_are_those_of_a_loop(likelihood):
    z = torch.randn(3, 2).double()
    found = likelihood(z, steps=STEPS).likeliest()
    for row, code in zip(found.tolist(), z, strict=True):
        kept = row[: row.index(0) + 1] if 0 in row else row
        assert kept == [int(conditionals(likelihood, code, kept[:t]).argmax()) for t in range(len(kept))]


def test_a_net_with_a_room_of_its_own_is_refused():
    with pytest.raises(TypeError, match=r"needs a method walk.*any length"):
        Sentences(CausalTransformer(4, 3, width=8))
