"""Discrete latents as scripts train them: guides that mirror the model, starts from data, and words of estimators."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from small_models import SMALLER, data

from dlvm.experiments.data import Loader
from dlvm.experiments.options.guides import own
from dlvm.experiments.options.objectives import Numbers, baseline_of, estimator_for, objective_of
from dlvm.experiments.setups.mixed_vae import MixedVAESetup
from dlvm.experiments.setups.sbn import SBNSetup
from dlvm.experiments.setups.setup import fresh_pair
from dlvm.experiments.setups.vae import VAESetup
from dlvm.experiments.setups.vq_vae import VQVAESetup

LOADER = data(SBNSetup())


@pytest.mark.parametrize("nonlinear, between", [(False, []), (True, [(6, 6), (6, 6)])])
def test_the_guide_of_a_belief_network_mirrors_it(nonlinear, between):
    """q(z2 | z1) by z1's width, as p(z1 | z2) by z2's; the encoder sees x less its mean."""
    model, guide = fresh_pair(SBNSetup((6, 4), nonlinear), LOADER, own)
    first, second = (posterior.net.net.layers for posterior in guide.posteriors)
    assert not len(first) and [tuple(layer.weight.shape) for layer in second] == between
    assert [tuple(layer.weight.shape) for layer in model.conditionals[0].net.layers][:-1] == [(4, 4)] * len(between)
    assert guide.names == ("z1", "z2") and torch.equal(guide.encoder.loc, LOADER.mean)


def test_a_codebook_starts_at_features_of_the_data_and_counts_its_codes():
    pyro.set_rng_seed(0)
    setup = VQVAESetup(**SMALLER["vq_vae"], prior="uniform")
    model, guide = fresh_pair(setup, LOADER, own)
    rows = guide.vectors(LOADER.first(1000)).reshape(-1, setup.code_dim)
    book = model.prior.codebook.vectors
    assert (torch.cdist(book, rows, compute_mode="donot_use_mm_for_euclid_dist").amin(1) < 1e-5).all()
    found = setup.measures(model, guide, LOADER)
    assert 1 < found["codes in use"] <= setup.codes and found["gain of p(k), nats"] == pytest.approx(0.0, abs=1e-5)
    codes = guide.codes(LOADER.x)
    share = torch.bincount(codes.flatten(), minlength=setup.codes) / codes.numel()
    assert found["codes in use"] == pytest.approx(
        math.exp(-sum(s * math.log(s) for s in share.tolist() if s)), rel=1e-4
    )
    other, _ = fresh_pair(VAESetup(), LOADER, lambda sites, net: torch.nn.Identity())
    assert setup.measures(other, guide, LOADER) == {}


def test_words_say_which_sites_the_score_is_of():
    assert not estimator_for(MixedVAESetup.defaults).detached and estimator_for(SBNSetup.defaults).detached
    assert objective_of("elbo", Numbers(2, temperature=0.7), "gumbel").estimator.temperature == 0.7


def nets(data: Loader = LOADER):
    return baseline_of(data, lambda: fresh_pair(SBNSetup((6, 4)), LOADER, own)[1])


@pytest.mark.parametrize(
    "word, seen", [("nvil", LOADER.x_dim), ("relax", LOADER.x_dim + 6 + 4), ("relax_net", LOADER.x_dim + 10)]
)
def test_the_net_of_an_estimator_is_of_whole_data_and_the_same_each_time(word, seen):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, two = (objective_of("elbo", Numbers(2, temperature=0.7), word, nets()).estimator for _ in range(2))
    net = one.baseline.net if word == "nvil" else one.net
    assert (
        net.layers[0].weight.shape == (100, seen)
        and (word != "relax" or one.start == 0.7)
        and (word != "relax_net" or one.alone)
    )
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(ValueError, match=f"{word.partition('_')[0]} has a net of .*x.*, whole, got batches of x, y"):
        objective_of("elbo", Numbers(2), word, nets(LOADER.giving("x", "y")))
    with pytest.raises(
        ValueError, match=f"{word.partition('_')[0]} needs a net of .*data, which this script does not make; take"
    ):
        objective_of("elbo", Numbers(2), word)
