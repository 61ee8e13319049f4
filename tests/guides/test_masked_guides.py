"""Guides made of others keep the masks of the model: what counts nothing in p counts nothing in q."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO

from dlvm.evidence import gaps, views
from dlvm.guides import Diagonal, Joint, Refined, latents
from dlvm.inference import log_weights
from dlvm.nets import MLP

X, SEEN = torch.linspace(-1, 2, 6)[:, None], torch.tensor([True, False, True, True, False, True])


class Features(MLP):
    def forward(self, x, seen):
        return super().forward(x)


def model(x, seen):
    with pyro.plate("data", len(x)), poutine.mask(mask=seen):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


@pytest.fixture
def diagonal():
    return Diagonal(latents(model, X, SEEN), Features(1, 4))


def test_rows_of_padding_weigh_nothing_under_a_refined_guide(diagonal):
    log_w = log_weights(model, Refined(diagonal, model, Trace_ELBO(), steps=2), X, SEEN, num_particles=3)
    assert (log_w[:, ~SEEN] == 0).all() and (log_w[:, SEEN] < 0).all()


def test_rows_of_padding_have_no_gap(diagonal):
    found = gaps(model, diagonal, [(X, SEEN)], steps=4, num_particles=10)
    for part in (found.elbo, found.best, found.log_px):
        assert (part.log_px[~SEEN] == 0).all() and (part.log_px[SEEN] < 0).all()


def test_a_vector_of_all_sites_is_refused_where_one_is_masked():
    with pytest.raises(ValueError, match="'z' is masked in the model, .*use Amortized"):
        Joint(latents(model, X, SEEN), Features(1, 4))


def test_the_aggregate_posterior_of_masked_sites_is_left_out(diagonal):
    found = views(model, diagonal, [(X, SEEN)], num_particles=3)
    assert found.information is None and "'z' is masked" in found.left_out["information"]
