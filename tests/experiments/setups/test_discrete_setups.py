"""Discrete latents as scripts train them: guides that mirror the model, starts from data, and words of estimators."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from small_models import SMALLER, data

from dlvm.experiments.options.guides import own
from dlvm.experiments.options.objectives import Numbers, baseline_of, estimator_for, objective_of
from dlvm.experiments.setups.mixed_vae import MixedVAESetup
from dlvm.experiments.setups.sbn import SBNSetup
from dlvm.experiments.setups.setup import fresh_pair
from dlvm.experiments.setups.vae import VAESetup
from dlvm.experiments.setups.vq_vae import VQVAESetup
from dlvm.inference import NVIL

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


def test_the_baseline_is_a_net_of_whole_data_and_the_same_each_time():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, two = (objective_of("elbo", Numbers(2), "nvil", baseline_of(LOADER)).estimator.baseline for _ in range(2))
    assert isinstance(one, NVIL) and one.net.layers[0].weight.shape == (100, LOADER.x_dim)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(ValueError, match="nvil has a net of x alone, whole, got batches of x, y"):
        objective_of("elbo", Numbers(2), "nvil", baseline_of(LOADER.giving("x", "y")))
