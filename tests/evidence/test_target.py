"""Evidence that puts values into a model: one density per datum, each chain's its own, masks on both sides alike."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close
from pyro import poutine

from dlvm.evidence import annealed, defensive, enumerated, quadrature
from dlvm.evidence.target import Target
from dlvm.guides import Diagonal, latents
from dlvm.nets import MLP

pytestmark = pytest.mark.usefixtures("float64")
X = torch.linspace(-1, 2, 6, dtype=torch.float64)
EXACT = dist.Normal(0.0, torch.tensor(2.0, dtype=torch.float64).sqrt()).log_prob(X)


def mixing(z):
    """Right for values of shape (batch,); with chains on the left, each becomes the mean of all."""
    return z if z.dim() == 1 else z.mean(0, keepdim=True).expand(z.shape)


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        pyro.sample("x", dist.Normal(mixing(z), 1.0), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))


@pytest.mark.slow
def test_chains_that_a_net_would_mix_run_one_after_the_other():
    assert not Target(model, (X,)).takes_chains(model) and Target(model, (X,)).takes_chains(guide)
    assert_close(quadrature(model, X).log_px, EXACT, 1e-6)
    found = defensive(model, guide, X, num_particles=200)
    assert (found.log_px - EXACT).abs().max() < 0.05
    found = annealed(model, X[:2], num_chains=3, temperatures=30, leaps=3)
    assert (found.log_px - EXACT[:2]).abs().max() < 0.5


def test_values_that_a_net_would_mix_are_summed_one_after_the_other():
    def bits(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.3 + torch.zeros(len(x))))
            pyro.sample("x", dist.Normal(mixing(z), 1.0), obs=x)

    exact = torch.logaddexp(
        dist.Normal(0.0, 1.0).log_prob(X) + torch.tensor(0.7).log(),
        dist.Normal(1.0, 1.0).log_prob(X) + torch.tensor(0.3).log(),
    )
    assert_close(enumerated(bits, X).log_px, exact, 1e-6)


def test_two_plates_over_the_same_data_are_refused():
    def apart(x):
        with pyro.plate("latents", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    for method in (quadrature, lambda model, x: annealed(model, x, temperatures=3)):
        with pytest.raises(ValueError, match="the pair gives 1 weights for 6 data"):
            method(apart, X)


@pytest.mark.slow
def test_a_table_as_long_as_a_batch_is_not_cut_where_the_model_stands_alone():
    def with_a_table(x, table):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(table.mean() + torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x, table = torch.linspace(-2, 3, 30), torch.arange(30.0) / 10
    exact = dist.Normal(table.mean(), 2**0.5).log_prob(x)
    assert_close(quadrature(with_a_table, [(x, table)], chunk=7).log_px, exact, 1e-6)


def test_rows_that_the_model_picks_by_itself_are_not_replaced():
    def by_index(i):
        with pyro.plate("data", len(X), subsample=i) as rows:
            z = pyro.sample("z", dist.Normal(torch.zeros(len(rows)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=X[rows])

    chosen = torch.tensor([4, 0])
    assert_close(quadrature(by_index, [(chosen,)]).log_px, EXACT[chosen], 1e-6)
    guide = Diagonal(latents(by_index, chosen), MLP(1, 4))
    h = guide.features(X[chosen, None])
    drawn = poutine.trace(lambda i: guide.draw(h)).get_trace(chosen)
    replayed = poutine.trace(poutine.replay(by_index, trace=drawn)).get_trace(chosen)
    assert torch.equal(replayed.nodes["x"]["value"], X[chosen])


def test_a_guide_without_the_models_mask_is_refused():
    def masked(x, seen):
        with pyro.plate("data", len(x)), poutine.mask(mask=seen):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def unmasked(x, seen):
        guide(x)

    for method in (defensive, lambda model, guide, data: annealed(model, data, guide, temperatures=3)):
        with pytest.raises(ValueError, match="'z' has a mask in the model that the guide's lacks"):
            method(masked, unmasked, [(X, X > 0)])


def test_a_guide_that_draws_a_subsample_is_refused():
    def some(x):
        with pyro.plate("data", len(x), subsample_size=2) as rows:
            pyro.sample("z", dist.Normal(x[rows] / 2, 0.5**0.5))

    with pytest.raises(ValueError, match="plate 'data' holds a subsample of 2 out of 6 data"):
        defensive(model, some, X, num_particles=4)
