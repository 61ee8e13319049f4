"""Batches that cannot be cut into rows are evaluated whole: a parameter for each datum, data along another axis."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close
from pyro.infer.autoguide import AutoNormal

from dlvm.evidence import importance
from dlvm.inference import evaluate

pytestmark = pytest.mark.usefixtures("float64")
X = torch.linspace(-1, 2, 12, dtype=torch.float64)
EXACT = dist.Normal(0.0, torch.tensor(2.0, dtype=torch.float64).sqrt()).log_prob(X)


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def one_parameter_each(x):
    loc = pyro.param("loc", x.detach() / 2)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, 0.5**0.5))


@pytest.mark.parametrize("chunk", [None, 10**9, 40, 1])
def test_a_guide_with_a_parameter_for_each_datum(chunk):
    one_parameter_each(X)
    found = evaluate(model, one_parameter_each, X, num_particles=30, chunk=chunk)
    assert found.num_data == 12
    assert_close(found.log_px, EXACT.mean(), 1e-9)
    assert_close(importance(model, one_parameter_each, X, num_particles=30, chunk=chunk).log_px, EXACT, 1e-9)


def test_an_automatic_guide():
    guide = AutoNormal(model)
    guide(X)
    with torch.no_grad():
        guide.locs.z.copy_(X / 2)
        guide.scales.z = torch.full((12,), 0.5**0.5)
    found = evaluate(model, guide, X, num_particles=30)
    assert_close(found.log_px, EXACT.mean(), 1e-9)


def by_time(x):
    with pyro.plate("data", x.shape[1]):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        for t in range(len(x)):
            pyro.sample(f"x{t}", dist.Normal(z, 1.0), obs=x[t])


def of_columns(x):
    with pyro.plate("data", x.shape[1]):
        pyro.sample("z", dist.Normal(x.sum(0) / (1 + len(x)), (1 + len(x)) ** -0.5))


def test_as_many_times_as_data_are_no_rows():
    x = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    exact = dist.MultivariateNormal(torch.zeros(3), torch.ones(3, 3) + torch.eye(3)).log_prob(x.T)
    for chunk in (None, 30, 1):
        assert_close(evaluate(by_time, of_columns, x, 30, chunk=chunk).log_px, exact.mean(), 1e-9)


def test_other_lengths_are_refused_in_words():
    with pytest.raises(ValueError, match="gives 4 weights for 3 data"):
        evaluate(by_time, of_columns, torch.zeros(3, 4), 30)
