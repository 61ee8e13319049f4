"""Baselines of the score function: what moves them, who trains them, and what they are good for."""

from __future__ import annotations

from functools import partial

import pyro
import pytest
import torch
from oracles import GOLDEN_SBN, X_SBN, assert_close, expected_bound, mean_and_variance
from oracles.forcing import golden_sbn, gradient
from pyro import infer, poutine
from torch import nn

from dlvm.inference import CUBO, ELBO, IWAE, NVIL, SVI, MovingAverage, ScoreFunction, Separate

pytestmark = pytest.mark.usefixtures("float64")


def test_a_moving_average_moves_with_training_steps_alone():
    lattice, parameters = golden_sbn()
    objective = IWAE(3, ScoreFunction(MovingAverage(0.9)))
    buffers = objective.estimator.baseline
    objective.loss(lattice.model, lattice.guide, lattice.x)
    with torch.no_grad():
        objective.differentiable_loss(lattice.model, lattice.guide, lattice.x)
    assert buffers.sum == 0 and buffers.weight == 0
    values = []
    for _ in range(3):
        values.append(-objective.loss_and_grads(lattice.model, lattice.guide, lattice.x))
    by_hand = sum(0.1 * 0.9 ** (2 - i) * value for i, value in enumerate(values))
    assert_close(buffers.sum, by_hand), assert_close(buffers.weight, 1 - 0.9**3)


def two_data():
    """Two data of very different evidence, 60 rows."""
    return golden_sbn(torch.stack([X_SBN, 1 - X_SBN]).repeat(30, 1))


@pytest.mark.parametrize("how", ["ours", "captured", "stock", "module"])
def test_nvils_net_is_trained_by_whatever_steps(how):
    """To the least squares that its data allow: on average it predicts each datum's signal."""
    lattice, parameters = two_data()
    net = nn.Linear(3, 1)
    objective = IWAE(2, ScoreFunction(NVIL(net, decay=0.0)))
    before = net.weight.detach().clone()
    model, guide, x = Program(lattice.model), Program(lattice.guide, parameters[-1]), lattice.x
    if how == "stock":
        svi = infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), objective)
        svi.step(x), svi.step(x)
    elif how == "module":
        module = objective(model, guide)
        assert {id(p) for p in net.parameters()} <= {id(p) for p in module.parameters()}
        optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
        module(x).backward(), optimizer.step()
    else:
        svi = SVI(model, guide, partial(torch.optim.Adam, lr=0.01), objective, engine={"ours": "eager"}.get(how, how))
        svi.step(x), svi.step(x)
    assert ((net.weight - before).abs() > 1e-4).all()


@pytest.mark.parametrize(
    "make", [partial(CUBO, 2, 2), lambda estimator: Separate(IWAE(2), ELBO(2, estimator)), partial(IWAE, 2)]
)
def test_nvils_net_descends_its_squared_error_whatever_the_bound(make):
    """By hand, over all outcomes of two particles; the scale of data leaves it alone."""
    lattice, _ = golden_sbn()
    net = nn.Linear(3, 1)
    baseline = NVIL(net)
    baseline.average.sum.fill_(-0.4), baseline.average.weight.fill_(0.5)
    objective = make(ScoreFunction(baseline))
    part = objective.guide if isinstance(objective, Separate) else objective
    guide, rows, log_w, _ = lattice.programs(2)
    pair = (poutine.scale(program, scale=7.0) for program in (lattice.model, guide))
    found = gradient(objective.differentiable_loss(*pair, rows), list(net.parameters()))
    error = (part.bound.signals(log_w.detach()) + 0.8 - net(rows).squeeze(-1)).square().mean(0).sum()
    assert_close(found, gradient(error, list(net.parameters())), 1e-9)
    assert found.abs().max() > 0.1


class Program(pyro.nn.PyroModule):
    def __init__(self, program, *parameters):
        super().__init__("guide" if parameters else "model")
        self.program, self.kept = program, nn.ParameterList([nn.Parameter(p.detach()) for p in parameters])

    def forward(self, x):
        return self.program(x)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_out_of_range_is_refused(decay):
    for make in (MovingAverage, lambda decay: NVIL(nn.Linear(3, 1), decay)):
        with pytest.raises(ValueError, match=rf"decay must be at least 0 and below 1, got {decay}"):
            make(decay)


def test_a_net_of_the_wrong_width_is_refused():
    lattice, _ = golden_sbn()
    with pytest.raises(ValueError, match=r"NVIL's net returned shape \(1, 2\).*the 1 data, as MLP\(x_dim, hidden, 1\)"):
        IWAE(2, ScoreFunction(NVIL(nn.Linear(3, 2)))).differentiable_loss(lattice.model, lattice.guide, lattice.x)


def test_nvil_lowers_the_variance_where_data_differ():
    """Both data by enumeration; the baseline of x is the mean of its signal."""
    variances = []
    for baseline in (ScoreFunction(), ScoreFunction(NVIL(nn.Linear(3, 1)))):
        total = 0.0
        for x in (X_SBN, 1 - X_SBN):
            lattice, parameters = golden_sbn(x)
            if baseline.baseline is not None:
                net = baseline.baseline.net
                with torch.no_grad():
                    net.weight.zero_()
                    net.bias.fill_(expected_bound(IWAE(2).bound, GOLDEN_SBN, x, 2).item())
            found, mass = lattice.gradients(IWAE(2, baseline), parameters[-1:])
            total = total + mean_and_variance(found, mass)[1]
        variances.append(total)
    assert (variances[1] < 0.5 * variances[0]).all()
