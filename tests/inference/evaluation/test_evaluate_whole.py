"""Batches that cannot be cut into rows are evaluated whole: a parameter for each datum, data along another axis."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close
from pyro.infer.autoguide import AutoNormal

from dlvm.evidence import importance, prior_sampling, views
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


@pytest.mark.parametrize("count", [2, 3, 5])
def test_times_are_no_rows_however_many_there_are(count):
    x = torch.randn(3, count, generator=torch.Generator().manual_seed(0))
    exact = dist.MultivariateNormal(torch.zeros(3), torch.ones(3, 3) + torch.eye(3)).log_prob(x.T)
    for chunk in (None, 30, 1):
        found = evaluate(by_time, of_columns, x, 30, chunk=chunk)
        assert found.num_data == count
        assert_close(found.log_px, exact.mean(), 1e-9)
    seen = views(by_time, of_columns, [x, x[:, :1]], num_particles=100)
    assert seen.num_data == count + 1 and "another axis" in seen.left_out["information"]
    assert abs(seen.elbo.value - torch.cat([exact, exact[:1]]).mean()) < 5 * seen.elbo.se


def with_a_table(x, table):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(table.mean(), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def of_the_table(x, table):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal((x + table.mean()) / 2, 0.5**0.5))


def test_a_table_as_long_as_a_batch_is_not_cut():
    table = torch.arange(12.0) ** 2
    exact = dist.Normal(table.mean(), 2**0.5).log_prob(X)
    for chunk in (None, 60, 1):
        assert_close(evaluate(with_a_table, of_the_table, [(X, table)], 30, chunk=chunk).log_px, exact.mean(), 1e-9)
    seen = views(with_a_table, of_the_table, [(X, table), (X[:5], table)], num_particles=100)
    assert seen.num_data == 17
    assert abs(seen.elbo.value - torch.cat([exact, exact[:5]]).mean()) < 5 * seen.elbo.se


def centred(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal((x - x.mean()) / 2, 0.5**0.5))


def test_a_net_that_looks_at_the_whole_batch_is_given_it():
    for chunk in (None, 300, 1):
        found = evaluate(model, centred, X, 300, chunk=chunk)
        assert abs(found.elbo - (EXACT.mean() - X.mean().square() / 4)) < 5 * found.elbo_se


def test_parameters_made_for_the_batch_are_not_made_for_the_rows_that_are_tried():
    def made_at_first(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("first", x.detach() / 2), 0.5**0.5))

    for guide in (made_at_first, AutoNormal(model, init_scale=0.5**0.5, init_loc_fn=lambda site: X / 2)):
        assert_close(evaluate(model, guide, X, num_particles=30).log_px, EXACT.mean(), 1e-9)


def test_rows_that_a_batch_picks_are_walked_as_they_come():
    def by_index(i):
        with pyro.plate("data", len(X), subsample=i) as rows:
            z = pyro.sample("z", dist.Normal(torch.zeros(len(rows)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=X[rows])

    def of_index(i):
        with pyro.plate("data", len(X), subsample=i):
            loc = pyro.param("by row", X / 2, event_dim=0)  # Pyro takes these rows, but not of all in another order
            pyro.sample("z", dist.Normal(loc, 0.5**0.5))

    batches = list(torch.arange(12).flip(0).split(6))
    seen = views(by_index, of_index, batches, num_particles=100)
    assert "subsample=" in seen.left_out["information"]
    assert abs(seen.elbo.value - EXACT.mean()) < 5 * seen.elbo.se


def test_a_support_that_depends_on_a_latent_is_that_of_the_guides_draws():
    def below(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Uniform(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Uniform(0.0, u), obs=x)

    def above(x):
        with pyro.plate("data", len(x)):
            pyro.sample("u", dist.Uniform(x, 1.0))

    def anywhere(x):
        with pyro.plate("data", len(x)):
            pyro.sample("u", dist.Uniform(torch.zeros(len(x)), 1.0))

    x = torch.linspace(0.1, 0.8, 8)
    found = evaluate(below, above, x, num_particles=10_000)
    assert abs(found.log_px - (-x.log()).log().mean()) < 5 * found.log_px_se
    for estimate in (importance(below, anywhere, x, 10_000), prior_sampling(below, x, 10_000)):
        assert abs(estimate.mean - (-x.log()).log().mean()) < 5 * estimate.mean_se


def far_back(x):
    """What a datum is raised by: thrice the one 40 before it, further than rows are tried."""
    return torch.cat([torch.zeros(40), 3 * x])[: len(x)]


def test_data_that_depend_on_ones_far_back_are_not_cut_where_that_changes_them():
    def follows(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z + far_back(x), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x - far_back(x)) / 2, 0.5**0.5))

    x = torch.linspace(-1, 2, 120)
    exact = dist.Normal(0.0, 2**0.5).log_prob(x - far_back(x))
    assert_close(importance(follows, guide, x, num_particles=30, chunk=150).log_px, exact, 1e-9)
    found = evaluate(follows, guide, x, num_particles=30, chunk=150)
    assert_close(found.log_px, exact.mean(), 1e-9)
    assert found.second_opinion_data == 0
