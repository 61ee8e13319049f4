"""Priors by a word, in every model that has one to choose, for data of every kind."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pyro
import pytest
import torch
from torch.distributions import constraints

from dlvm.distributions import FixedInputs, VampPrior
from dlvm.experiments.data import Loader, digits
from dlvm.experiments.options.priors import PRIORS, PriorWord
from dlvm.experiments.runs.restore import keep, restore
from dlvm.experiments.setups.hvae import HVAESetup
from dlvm.experiments.setups.setup import fresh_pair, num_parameters
from dlvm.experiments.setups.top_down import TopDownSetup
from dlvm.experiments.setups.vae import VAESetup
from dlvm.guides import Diagonal
from dlvm.inference import ELBO, check

SETUPS = {"vae": VAESetup(3, (8,)), "hvae": HVAESetup((4, 3), (8,), (8,)), "top_down": TopDownSetup(4, (4,), 8)}
TOPS = {"vae": "z", "hvae": "z2", "top_down": "z3"}
CLOSED = {"standard", "ard", "sphere"}
OTHERS = ("ard", "vamp", "maf", "sphere")  # of the hierarchies, which take a prior as the VAE does
CASES = [("vae", word) for word in PRIORS] + [(model, word) for model in ("hvae", "top_down") for word in OTHERS]


@pytest.fixture(scope="module")
def train():
    return digits(binarize="dynamic", batch_size=20).train


def kinds():
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    holes = torch.where(x > 1, torch.nan, 1000 * x + 5000)
    return {
        "normal": (Loader(1000 * x + 5000), constraints.real),
        "poisson": (Loader(x.abs().mul(9).round()), constraints.positive),
        "beta": (Loader(x.sigmoid()), constraints.unit_interval),
        "normal with holes": (Loader(holes, missing=True), constraints.real),
    }


def test_every_word_has_a_prior():
    assert set(get_args(PriorWord)) == set(PRIORS)


@pytest.mark.parametrize("model, word", CASES)
def test_every_model_takes_priors_at_its_top(model, word, train):
    setup = replace(SETUPS[model], prior=word)
    if model == "top_down" and word == "sphere":
        with pytest.raises(ValueError, match="prior must be of real vectors, got SphericalUniform"):
            fresh_pair(setup, train, Diagonal)
        return
    pair, guide = fresh_pair(setup, train, Diagonal)
    found = check(pair, guide, ELBO(analytic_kl=True), train.example)[TOPS[model]]
    assert found == ("analytic" if word in CLOSED and model != "top_down" else "Monte Carlo")
    assert pair(n=2).shape == (2, 64)
    ids = {id(p) for p in (*pair.parameters(), *guide.parameters())}
    assert sum(p.numel() for p in pair.parameters()) + sum(p.numel() for p in guide.parameters()) == num_parameters(
        pair, guide
    )
    assert len(ids) == len([*pair.parameters(), *guide.parameters()])


def test_the_standard_prior_is_bit_for_bit_what_it_was_and_a_run_brings_its_prior_back(train, tmp_path):
    pyro.set_rng_seed(0)
    usual, _ = fresh_pair(VAESetup(3, (8,)), train, Diagonal)
    pyro.set_rng_seed(0)
    model, guide = fresh_pair(VAESetup(3, (8,), prior="vamp", components=7), train, Diagonal)
    assert all(
        torch.equal(p, q) for p, q in zip(usual.likelihood.parameters(), model.likelihood.parameters(), strict=True)
    )
    keep(tmp_path, model, guide, 64)
    again, its_guide = restore(tmp_path)
    assert again.prior.posterior._read[0] is its_guide.encoder
    z = torch.randn(5, 3)
    assert torch.equal(again.prior().log_prob(z), model.prior().log_prob(z))


@pytest.mark.parametrize("kind", kinds())
def test_pseudo_inputs_start_at_data_of_every_kind_and_learn_in_their_units(kind):
    data, support = kinds()[kind]
    model, guide = fresh_pair(VAESetup(2, (8,), likelihood=kind.split()[0], prior="vamp", components=6), data, Diagonal)
    inputs = model.prior.pseudo_inputs
    assert inputs.support is support and inputs().isfinite().all() and bool(support.check(inputs()).all())
    low, high = data.x[data.x.isfinite()].min() - 0.1, data.x[data.x.isfinite()].max() + 0.1
    assert low <= inputs().min() and inputs().max() <= high
    model.prior().log_prob(torch.randn(5, 2)).sum().backward()
    assert inputs.values.grad.abs().sum() > 0
    moved = inputs().detach()
    with torch.no_grad():
        inputs.values += 0.1
    assert ((inputs() - moved).abs().mean() > 0.001 * (high - low)).all()


def test_fixed_inputs_are_data_as_batches_have_them_and_classes_are_learned_by_nobody(train):
    model, _ = fresh_pair(VAESetup(2, (8,), prior="vamp_data", components=2000), train, Diagonal)
    inputs = model.prior.pseudo_inputs
    assert isinstance(inputs, FixedInputs) and inputs().shape == (2000, 64)
    assert set(inputs().unique().tolist()) == {0.0, 1.0}
    classes = Loader(torch.randint(3, (30, 2)).float(), kind="category")
    setup = VAESetup(2, (8,), likelihood="categorical", prior="vamp_data", components=5)
    assert isinstance(fresh_pair(setup, classes, Diagonal)[0].prior, VampPrior)
    with pytest.raises(ValueError, match="prior vamp learns pseudo-inputs by their gradient.*--prior vamp_data"):
        fresh_pair(replace(setup, prior="vamp"), classes, Diagonal)


@pytest.mark.parametrize("model", SETUPS)
def test_components_of_a_prior_that_has_none_are_refused(model, train):
    with pytest.raises(ValueError, match="components are Gaussians .*, got 5 for the prior standard"):
        fresh_pair(replace(SETUPS[model], components=5), train, Diagonal)
