"""p(y | x) by a network: what it is worth, what it predicts, and how honest that is, against answers by other means."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from dlvm.distributions import Categorical, ConstantScaleNormal, DiagonalNormal, FixedScale
from dlvm.experiments.measures.predictions import classified, coverage
from dlvm.guides import FullyObserved
from dlvm.inference import MaximumLikelihood, check, evaluate, predict, train
from dlvm.models import Conditional

X, Y = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 4


def test_its_evidence_is_the_cross_entropy_and_its_prediction_the_softmax() -> None:
    net = nn.Linear(3, 4)
    model, guide = Conditional(Categorical(net)), FullyObserved()
    found = evaluate(model, guide, [(X, Y)], num_particles=7)
    assert math.isclose(found.log_px, -nn.functional.cross_entropy(net(X), Y).item(), rel_tol=1e-5)
    expected = net(X).softmax(-1).detach()
    for y in (None, Y):  # a label that is there tells nothing of p(y | x)
        assert torch.allclose(predict(model, guide, (X, y), "y", num_particles=3).probabilities, expected, atol=1e-6)


def test_a_column_given_the_others_is_the_same_as_an_argument_of_its_own() -> None:
    torch.manual_seed(0)
    net = DiagonalNormal(nn.Linear(2, 8), 1)
    column, apart = Conditional(net, target=1), Conditional(net)
    guide, others = FullyObserved(), X[:, [0, 2]]
    one, two = evaluate(column, guide, X), evaluate(apart, guide, [(others, X[:, 1:2])])
    assert one.log_px == pytest.approx(two.log_px, rel=1e-6)
    assert torch.allclose(predict(column, guide, X, "y").mean, predict(apart, guide, (others, None), "y").mean)


def test_least_squares_is_what_maximum_likelihood_of_a_linear_gaussian_finds() -> None:
    torch.manual_seed(0)
    net, x = nn.Linear(2, 1), X[:, :2]
    y = x @ torch.tensor([[1.0], [-2.0]]) + 0.5 + 0.1 * X[:, 2:]
    model = Conditional(ConstantScaleNormal(net, FixedScale(1.0)))
    train(
        model,
        FullyObserved(),
        MaximumLikelihood(),
        [(x, y)] * 300,
        epochs=2,
        optimizer=lambda p: torch.optim.Adam(p, lr=0.05),
    )
    best = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], 1), y).solution
    assert torch.allclose(torch.cat([net.weight.T, net.bias[None]]), best, atol=2e-3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((X[:, :1],), "x must have a column 1, the target"),
        ((X, Y), "y must be None where target says"),
    ],
)
def test_calls_that_do_not_fit_the_target_are_refused(arguments: tuple, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Conditional(DiagonalNormal(nn.Linear(2, 8), 1), target=1)(*arguments)


def test_labels_beyond_the_classes_are_refused_with_what_they_must_be() -> None:
    with pytest.raises(ValueError, match=r"'y'.*(0|lower_bound)"):
        check(Conditional(Categorical(nn.Linear(3, 3))), FullyObserved(), MaximumLikelihood(), X, Y)


def test_calibration_of_probabilities_that_are_right_and_of_some_that_are_not() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(20_000, 3, generator=generator) + 0.2
    p = p / p.sum(1, keepdim=True)
    labels = torch.multinomial(p, 1, generator=generator)[:, 0]
    honest = classified(p, labels)
    assert honest.ece < 0.015 and honest.accuracy == pytest.approx(p.max(1).values.mean().item(), abs=0.015)
    bold = classified((3 * p.log()).softmax(1), labels)
    assert bold.accuracy == honest.accuracy and bold.ece > 0.1 and bold.log_py < honest.log_py


def test_central_intervals_hold_what_they_say_of_gaussian_numbers() -> None:
    y = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    found = coverage(y, torch.zeros_like(y), torch.ones_like(y))
    assert found[0.5] == pytest.approx(0.5, abs=0.012) and found[0.9] == pytest.approx(0.9, abs=0.008)
