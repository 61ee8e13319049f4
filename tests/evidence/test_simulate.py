"""Data simulated from a model: joint draws, of a stream of their own, also where there are inputs."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from dlvm.evidence.annealing.annealed import annealed, reverse_annealed
from dlvm.evidence.simulate import simulate
from dlvm.models import PPCA


def test_what_is_simulated_is_a_joint_draw():
    """x given z has the likelihood's moments, and z the prior's; neither shares draws with an estimator's seed."""
    model = PPCA(torch.tensor([[0.8, 0.3], [0.0, 0.6], [0.7, -0.5]]), torch.tensor([0.1, -0.2, 0.0]), 0.8)
    (x,), values = simulate(model, 5000, seed=3)
    noise = (x - values["z"] @ model.weight.T - model.loc) / model.scale
    assert (noise.square().mean(0) - 1).abs().max() < 0.1 and (values["z"].square().mean(0) - 1).abs().max() < 0.1
    torch.manual_seed(3)
    assert not torch.equal(torch.randn(5000, 2), values["z"])


def conditional(x: Tensor | None, c: Tensor, n: int = 1) -> Tensor:
    with pyro.plate("data", len(c)):
        z = pyro.sample("z", dist.Normal(c, torch.ones(1)).to_event(1))
        return pyro.sample("x", dist.Normal(z, torch.ones(1)).to_event(1), obs=x)


def test_a_conditional_model_is_simulated_at_its_inputs(float64):
    c = torch.linspace(-3, 3, 6)[:, None]
    pairs = simulate(conditional, 6, example=(c, c))
    assert torch.equal(pairs.args[1], c) and not torch.equal(pairs.args[0], c) and set(pairs.values) == {"z"}
    truth = dist.Normal(c, 2**0.5).log_prob(pairs.args[0]).squeeze(-1)
    lower, upper = (
        f(conditional, d, num_chains=20, temperatures=10, leaps=3)
        for f, d in ((annealed, [pairs.args]), (reverse_annealed, pairs))
    )
    assert abs(lower.mean - truth.mean()) < 0.2 and abs(upper.mean - truth.mean()) < 0.2


def no_n(x=None):
    return x


def unnamed(data=None, n=1):
    with pyro.plate("data", n):
        return pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=data)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: simulate(no_n, 3), TypeError, "cannot be asked for n data"),
        (lambda: simulate(unnamed, 3), ValueError, "none of which is its argument 'data'"),
        (lambda: simulate(PPCA(torch.ones(3, 1), torch.zeros(3), 1.0), 0), ValueError, "n must be at least 1, got 0"),
        (lambda: simulate(conditional, 3, example=(torch.zeros(2, 1),) * 2), ValueError, "expected n=3 rows"),
    ],
)
def test_refused_in_words(call, error, message):
    with pytest.raises(error, match=message):
        call()
