"""A discriminator at its optimum knows the Jensen-Shannon divergence, and pulls what it judges the right way."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from torch import nn

from dlvm.inference import Discriminator
from dlvm.nets import MLP

P, Q = torch.tensor([[0.5, 0.3, 0.2, 0.0], [0.1, 0.3, 0.2, 0.4]], dtype=torch.float64)
COUNTS = 10


def rows(p: torch.Tensor) -> torch.Tensor:
    """One-hot rows of a finite space, in the shares that p has."""
    return torch.eye(len(p), dtype=p.dtype).repeat_interleave((COUNTS * p).round().long(), 0)


def test_where_it_is_best_its_value_is_twice_the_jensen_shannon_divergence_less_2_log_2():
    """Over a finite space the log-odds may be anything, so that D = p / (p + q) can be had, and nothing is above it."""
    judge = Discriminator(nn.Linear(4, 4)).double()
    with torch.no_grad():
        judge.net.weight.copy_(torch.eye(4))
        judge.head.weight.copy_((P / Q).log().clamp_min(-40))
        judge.net.bias.zero_()
        judge.head.bias.zero_()
    real, fake = rows(P), rows(Q)
    middle = (P + Q) / 2
    kl = [(p[p > 0] * (p / middle)[p > 0].log()).sum().item() for p in (P, Q)]
    js = 0.5 * sum(kl)
    assert judge.jensen_shannon(real, fake).item() == pytest.approx(js, rel=1e-6) and js > 0.1
    assert judge.game(real, fake).mean().item() == pytest.approx(2 * js - 2 * math.log(2), rel=1e-6)
    slopes = torch.autograd.grad(judge.learned(real, fake).mean(), list(judge.parameters()))
    assert all(slope.abs().max() < 1e-6 for slope in slopes)
    with torch.no_grad():
        judge.head.weight.add_(torch.tensor([0.2, -0.1, 0.1, 0.3]))
    assert judge.jensen_shannon(real, fake) < js - 1e-4


@pytest.mark.parametrize(
    "signal, of",
    [
        ("non_saturating", lambda d: d.log()),
        ("reversed", lambda d: -(1 - d).log()),
        ("log_ratio", lambda d: (d / (1 - d)).log()),
    ],
)
def test_rows_are_pulled_by_the_signal_and_the_net_by_its_own_game_as_finite_differences_say(signal, of):
    pyro.set_rng_seed(1)
    judge = Discriminator(MLP(2, 5, 4, activation=nn.Tanh), signal).double()
    real, fake = torch.randn(2, 6, 2, dtype=torch.float64)
    fake.requires_grad_()
    gain = judge.gain(fake, real, 3.0).sum()
    by_rows, *by_net = torch.autograd.grad(gain, [fake, *judge.parameters()])

    def pulled(at: torch.Tensor) -> torch.Tensor:
        return 3.0 * of(judge(at).sigmoid()).sum()

    step = 1e-6
    for i, j in ((0, 0), (4, 1)):
        moved = torch.zeros_like(fake)
        moved[i, j] = step
        wanted = (pulled(fake.detach() + moved) - pulled(fake.detach() - moved)) / (2 * step)
        assert by_rows[i, j].item() == pytest.approx(wanted.item(), rel=1e-6)
    own = torch.autograd.grad(judge.game(real, fake.detach()).sum(), list(judge.parameters()))
    assert all(torch.allclose(a, b) for a, b in zip(by_net, own, strict=True))
    if signal == "reversed":  # the gradient of the game, with its sign reversed
        (against,) = torch.autograd.grad(judge.game(real, fake).sum(), fake)
        assert torch.allclose(by_rows, -3.0 * against)


def test_to_be_taken_for_fake_is_the_other_sign():
    pyro.set_rng_seed(2)
    judge, x = Discriminator(MLP(2, 4, 4)), torch.randn(5, 2)
    other = Discriminator(judge.net, judge.signal)
    with torch.no_grad():
        other.head.weight.copy_(-judge.head.weight)
        other.head.bias.copy_(-judge.head.bias)
    assert torch.allclose(judge.pull(x, as_real=False), other.pull(x))


def test_a_prior_that_is_learned_is_pulled_to_the_codes():
    judge, prior = Discriminator(MLP(1, 4, 4)), torch.zeros(3, 1)
    codes = torch.ones(3, 1)
    fixed = judge.gain(codes, prior, 2.0)
    learned = judge.gain(codes, prior.requires_grad_(), 2.0)
    assert torch.allclose(learned - fixed, 2.0 * judge.pull(prior, as_real=False))
