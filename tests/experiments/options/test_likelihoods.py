"""Likelihoods by their words: which data fit, that they start where columns alone would be, and that they train."""

from __future__ import annotations

import logging
import math
from typing import get_args

import pyro
import pytest
import torch

from dlvm.distributions import Missing
from dlvm.experiments.data import Loader
from dlvm.experiments.options.fitting import check_fits, classes_of, levels_of
from dlvm.experiments.options.likelihoods import LIKELIHOODS, LikelihoodWord
from dlvm.experiments.setups.setup import fresh_pair
from dlvm.experiments.setups.vae import VAESetup
from dlvm.guides import Diagonal
from dlvm.inference import ELBO, evaluate, fit, log_weights

N = 300
WORDS = get_args(LikelihoodWord)


def table(kind: str) -> torch.Tensor:
    """Columns of very different sizes of one kind."""
    torch.manual_seed(0)
    if kind == "binary":
        return (torch.rand(N, 4) < torch.tensor([0.1, 0.5, 0.9, 0.3])).float()
    if kind == "counts":
        return torch.poisson(torch.tensor([0.1, 3.0, 80.0, 4000.0]) * torch.rand(N, 1) * 2)
    if kind == "real":
        return torch.tensor([0.0, 1e3, -5.0, 1e-3]) + torch.randn(N, 4) * torch.tensor([1.0, 50.0, 1e-2, 1e-4])
    if kind == "alike":
        return 5 + 0.2 * torch.randn(N, 4)
    if kind == "mixed":
        return torch.stack([table(kind)[:, d] for d, kind in enumerate(("binary", "real", "classes", "counts"))], 1)
    if kind == "shares":
        return torch.rand(N, 4) * 0.9 + 0.05
    if kind == "greys":
        return torch.randint(0, 17, (N, 4)) / 16
    if kind == "bytes":
        return torch.cat([torch.randint(0, 256, (N, 3)).float(), torch.full((N, 1), 255.0)], 1)
    return torch.stack([torch.randint(0, k, (N,)).float() for k in (2, 3, 5, 9)], 1)  # classes


FITS = {
    "bernoulli": "binary",
    **dict.fromkeys(("poisson", "negative_binomial", "zero_inflated"), "counts"),
    **dict.fromkeys(("normal", "normal_learned", "normal_fixed", "laplace", "student_t", "flow"), "real"),
    **dict.fromkeys(("normal_shared", "normal_optimal"), "alike"),
    **dict.fromkeys(("categorical", "ordinal"), "classes"),
    "mixed": "mixed",
    **dict.fromkeys(("continuous_bernoulli", "beta"), "shares"),
    **dict.fromkeys(("grey_levels", "discretised_logistic", "logistic_mixture"), "greys"),
}
REFUSALS = [
    ("bernoulli", "counts", "these look like counts: --likelihood negative_binomial"),
    ("bernoulli", "bytes", "8-bit grey levels: --scale 255"),
    ("bernoulli", "greys", "grey levels: --binarize dynamic"),
    ("bernoulli", "real", "real numbers: --likelihood normal"),
    ("poisson", "real", "counts 0, 1, 2.*real numbers: --likelihood normal"),
    ("negative_binomial", "shares", "counts 0, 1, 2.*continuous_bernoulli"),
    ("zero_inflated", "real", "real numbers"),
    ("categorical", "real", "classes 0, 1, 2.*real numbers"),
    ("categorical", "counts", "at most 1000 classes.*counts: --likelihood negative_binomial"),
    ("ordinal", "real", "likelihood ordinal is of classes 0, 1, 2"),
    ("logistic_mixture", "shares", "on no such grid"),
    ("continuous_bernoulli", "bytes", "between 0 and 1.*--scale 255"),
    ("beta", "greys", "no density.*--likelihood continuous_bernoulli"),
    ("grey_levels", "shares", "on no such grid.*continuous_bernoulli"),
    ("discretised_logistic", "bytes", "between 0 and 1.*--scale 255"),
]


def test_every_word_has_a_likelihood_and_data_that_fit():
    assert set(WORDS) == set(LIKELIHOODS) | {"mixed"} == set(FITS)
    for word, kind in FITS.items():
        check_fits(word, Loader(table(kind)))


@pytest.mark.parametrize("word, kind, said", REFUSALS)
def test_data_that_cannot_come_from_it_are_refused_with_what_fits(word, kind, said):
    with pytest.raises(ValueError, match=f"(?s){said}"):
        VAESetup(likelihood=word).model(Loader(table(kind)))


@pytest.mark.parametrize(
    "x, said",
    [
        (table("binary"), "0 and 1 alone"),
        (table("counts"), "whole numbers"),
        (torch.ones(9, 2) * 0.5, "always the same"),
    ],
)
def test_data_of_which_a_density_says_little_are_let_pass_with_a_warning(x, said, caplog, monkeypatch):
    monkeypatch.setattr("dlvm.inference.console._said", set())
    with caplog.at_level(logging.INFO, "dlvm"):
        check_fits("normal", Loader(x))
    assert said in caplog.text


def columns_alone(word: str, x: torch.Tensor) -> float:
    """Nats per datum of independent columns of the likelihood's own family, by their moments or frequencies."""
    mean, sd = x.mean(0), x.std(0)
    if word == "mixed":
        words = ("bernoulli", "normal", "categorical", "negative_binomial")
        return sum(columns_alone(word, x[:, d : d + 1]) for d, word in enumerate(words))
    if word in ("categorical", "ordinal", "grey_levels"):
        counts = [torch.unique(column, return_counts=True)[1] / N for column in x.T]
        return sum((p * p.log()).sum() for p in counts).item()
    if word == "bernoulli":
        return (mean * mean.log() + (1 - mean) * (1 - mean).log()).sum().item()
    if word == "poisson":
        return torch.distributions.Poisson(mean).log_prob(x).sum(-1).mean().item()
    if word in ("negative_binomial", "zero_inflated"):
        r = mean.square() / (sd.square() - mean).clamp_min(1e-2 * mean.square())
        return torch.distributions.NegativeBinomial(r, logits=(mean / r).log()).log_prob(x).sum(-1).mean().item()
    if word in ("continuous_bernoulli", "beta"):
        return 0.0
    if word in ("discretised_logistic", "logistic_mixture"):
        return -4 * math.log(17)
    return torch.distributions.Normal(mean, sd).log_prob(x).sum(-1).mean().item()


@pytest.mark.parametrize("word", WORDS)
def test_training_starts_near_columns_alone_and_rises(word):
    """With nothing known of z, a likelihood should be worth about what its columns are, within 2 nats each.

    Poisson's columns alone are too narrow for these counts, and what z blurs them by is a gain.
    """
    data = Loader(table(FITS[word]), batch_size=100, shuffle=True)
    pyro.set_rng_seed(0)
    model, guide = fresh_pair(VAESetup(likelihood=word, z_dim=2, hidden=(16,)), data, Diagonal)
    start = log_weights(model, guide, data.x, num_particles=50).logsumexp(0).mean().item() - math.log(50)
    alone = columns_alone(word, data.x)
    assert start > alone - 8 and (word == "poisson" or start < alone + 8)
    first, *_, last = fit(model, guide, ELBO(), data, epochs=4, seed=0, engine="eager", progress=False)
    assert last.train > first.train


@pytest.mark.parametrize("word", ["bernoulli", "negative_binomial", "student_t", "categorical", "mixed"])
def test_with_holes_every_part_knows_of_them(word):
    x = table(FITS[word])
    gone = torch.rand(N, 4) < 0.3
    gone[5] = True
    data = Loader(torch.where(gone, math.nan, x), batch_size=100, missing=True)
    pyro.set_rng_seed(0)
    model, guide = fresh_pair(VAESetup(likelihood=word, z_dim=2, hidden=(16,)), data, Diagonal)
    assert isinstance(model.likelihood, Missing)
    *_, last = fit(model, guide, ELBO(), data, epochs=2, seed=0, engine="eager", progress=False)
    result = evaluate(model, guide, data, num_particles=10)
    there = 0.7  # of the numbers, and so of the nats
    assert abs(result.log_px - there * columns_alone(word, x)) < 8 and last.train < result.log_px + 1
    with torch.no_grad():
        assert not model(n=50).isnan().any()


def test_levels_and_classes_are_read_from_the_data():
    assert levels_of(Loader(table("greys"))) == 17 and levels_of(Loader(table("bytes") / 255)) == 256
    assert classes_of(Loader(table("classes"))) == [2, 3, 5, 9]
