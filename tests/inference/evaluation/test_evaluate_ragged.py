"""Batches whose model has other sites, or as many numbers more: each datum counts with what it has."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close

from dlvm.distributions.likelihoods.missing import PartlyObserved
from dlvm.inference import ELBO, evaluate, fit, log_weights

pytestmark = pytest.mark.usefixtures("float64")
LONG, SHORT = torch.linspace(-3, 3, 16, dtype=torch.float64).reshape(4, 4), torch.ones(2, 2, dtype=torch.float64)


def exact(x):
    return dist.Normal(0.0, 2**0.5).log_prob(x).sum(-1)


def model(x):
    with pyro.plate("data", len(x)):
        for t in range(x.shape[1]):
            z = pyro.sample(f"z{t}", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample(f"x{t}", dist.Normal(z, 1.0), obs=x[:, t])


def guide(x, steps=None):
    with pyro.plate("data", len(x)):
        for t in range(steps or x.shape[1]):
            loc = x[:, t] / 2 if t < x.shape[1] else torch.zeros(len(x))
            pyro.sample(f"z{t}", dist.Normal(loc, 0.5**0.5))


@pytest.mark.parametrize("batches", [[LONG, SHORT], [SHORT, LONG], [SHORT, LONG, SHORT]])
@pytest.mark.parametrize("chunk", [None, 30])
def test_ragged_batches_in_any_order(batches, chunk):
    found = evaluate(model, guide, batches, num_particles=100, chunk=chunk)
    total = sum(exact(x).sum() for x in batches)
    count = sum(len(x) for x in batches)
    assert_close(found.log_px, total / count, 1e-9)
    assert_close(found.bits_per_dim, -total / math.log(2) / sum(x.numel() for x in batches), 1e-9)
    assert (found.units, found.active_units) == (4, 4) and found.num_data == count


def test_holes_of_an_input_are_no_holes_of_what_is_observed():
    """y has one number given x, whatever x lacks, and y's own holes count nothing."""

    def given(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("y", PartlyObserved(dist.Normal(x.nan_to_num(0.0).sum(-1), 1.0)), obs=y)

    x, y = LONG.clone(), torch.arange(4.0)
    x[:, 1:3], y[0] = math.nan, math.nan
    found = evaluate(given, lambda x, y: None, [(x, y)], num_particles=1)
    total = dist.Normal(x.nan_to_num(0.0).sum(-1)[1:], 1.0).log_prob(y[1:]).sum()
    assert_close(found.bits_per_dim, -total / math.log(2) / 3, 1e-9)


def test_a_unit_is_looked_at_over_the_data_that_have_it():
    flat = LONG.clone()
    flat[:, 2:] = 1.0  # the last two steps are the same in all data
    assert evaluate(model, guide, [flat, SHORT], num_particles=400).active_units == 2


def test_a_site_that_the_model_lacks_is_refused():
    for run in (
        lambda: evaluate(model, lambda x: guide(x, 4), [LONG, SHORT], num_particles=10),
        lambda: log_weights(model, lambda x: guide(x, 4), SHORT, num_particles=10),
    ):
        with pytest.raises(ValueError, match=r"guide draws the sites \['z2', 'z3'\], which the model lacks"):
            run()


def labelled(x, y=None):
    with pyro.plate("data", len(x)):
        y = pyro.sample("y", dist.Normal(torch.zeros(len(x)), 1.0), obs=y)
        pyro.sample("x", dist.Normal(y, 1.0), obs=x)


def labelling(x, y=None):
    with pyro.plate("data", len(x)):
        if y is None:
            loc = pyro.param("half", torch.tensor(0.5, dtype=torch.float64)) * x
            pyro.sample("y", dist.Normal(loc, 0.5**0.5))


@pytest.mark.parametrize("first", [0, 1])
def test_a_label_that_some_batches_lack(first):
    x, y = LONG[0], LONG[1]
    batches = [(x, y), (x,)][:: 1 - 2 * first]
    right = exact(x[:, None]).sum() + dist.Normal(0.0, 1.0).log_prob(y).sum() + dist.Normal(y, 1.0).log_prob(x).sum()
    assert_close(evaluate(labelled, labelling, batches, num_particles=30).log_px, right / 8, 1e-9)
    if first:  # labelled batches alone have no parameter to train, and check looks at the first
        (epoch,) = fit(labelled, labelling, ELBO(), batches, epochs=1, optimizer=lambda p: torch.optim.SGD(p, lr=1e-12))
        assert_close(epoch.train, right / 8, 1e-9)


def test_numbers_that_are_masked_are_none_of_those_that_bits_are_spread_over():
    def masked(x, mask):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z[:, None], 1.0).expand(x.shape).mask(mask).to_event(1), obs=x)

    def posterior(x, mask):
        precision = 1 + mask.sum(1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x * mask).sum(1) / precision, precision**-0.5))

    x, mask = torch.randn(6, 4), torch.arange(4) < torch.tensor([1, 4, 2, 2, 3, 4])[:, None]
    found = evaluate(masked, posterior, [(x, mask)], num_particles=5)
    assert_close(found.bits_per_dim * mask.sum(), -found.log_px * 6 / torch.tensor(2.0).log(), 1e-6)
