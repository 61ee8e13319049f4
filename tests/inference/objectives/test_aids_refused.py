"""Aids that make no sense, or not for this pair, are refused before the first step, with the remedy."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import GOLDEN_1, X_1
from torch import nn

from dlvm.guides import Diagonal, FullRank, latents
from dlvm.inference import (
    ELBO,
    IWAE,
    MAP,
    RWS,
    SVI,
    VIMCO,
    DReG,
    MaximumLikelihood,
    Separate,
    capacity,
    check,
    cyclical,
    fit,
    free_bits,
    linear,
    tempered,
    total_correlation,
)
from dlvm.models import PPCA
from dlvm.nets import MLP

STANDARD = partial(dist.Normal, 0.0, 1.0)
XS = torch.stack([X_1, -X_1, X_1 + 1])


def build(Guide=Diagonal, dtype=torch.float32):
    pyro.set_rng_seed(1)
    model = PPCA(GOLDEN_1.weight, GOLDEN_1.mu, 0.5).to(dtype)
    return model, Guide(latents(model, XS.to(dtype)), MLP(4, 3, activation=nn.Tanh)).to(dtype)


def test_a_warm_up_that_outlasts_the_training_is_an_error():
    model, guide = build()
    objective = MAP(tempered(ELBO(), cyclical(0.0, 1.0, steps=21)), STANDARD(), 3)
    with pytest.raises(ValueError, match="takes 21 steps, and only 20 are planned"):
        fit(model, guide, objective, [(XS.float(),)] * 2, epochs=10)
    with pytest.raises(ValueError, match="takes 21 steps, and only 20 are planned"):
        SVI(model, guide, torch.optim.Adam, objective, steps=20)
    assert len(list(fit(model, guide, objective, [(XS.float(),)] * 3, epochs=7, progress=False))) == 7


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: tempered(ELBO(), -0.5), "beta: value must be one finite number of at least 0"),
        (lambda: tempered(ELBO(), linear), "beta must be a number or a schedule"),
        (lambda: tempered(RWS(3), 0.5), "does not follow the bound"),
        (lambda: tempered(free_bits(ELBO(), 0.5), 0.5), "takes a plain bound"),
        (lambda: tempered("elbo", 0.5), "objective must be one of inference's"),
        (lambda: free_bits(IWAE(3), 0.5), "which only the ELBO has"),
        (lambda: free_bits(ELBO(2, VIMCO()), 0.5), "under the total derivative"),
        (lambda: free_bits(ELBO(), -1.0), "nats must be finite and at least 0"),
        (lambda: capacity(ELBO(), 1.0, gamma=-1.0), "gamma must be at least 0"),
        (lambda: MAP(ELBO(), 1.0, 10), "prior must be a distribution over single numbers"),
        (lambda: MAP(ELBO(), dist.Normal(torch.zeros(2), 1.0).to_event(1), 10), "over single numbers"),
        (lambda: MAP(ELBO(), STANDARD(), 0), "num_data must be a positive integer"),
        (lambda: Separate(model=tempered(ELBO(), 0.5), guide=ELBO()), "step it by itself"),
        (lambda: linear(0.0, 1.0, steps=0), "steps must be a positive integer"),
        (lambda: linear(0.0, float("inf"), steps=3), "finite"),
        (lambda: cyclical(0.0, 1.0, steps=3, cycles=4), "cycles must be at least 1 and at most steps"),
    ],
)
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises((ValueError, TypeError), match=words):
        make()


def test_what_a_pair_does_not_allow_is_refused_before_training():
    model, guide = build(FullRank)
    xs = XS.float()
    for objective, words in (
        (free_bits(ELBO(), 0.5, groups=2), "no densities per dimension"),
        (total_correlation(ELBO(), 2.0), "needs the marginals"),
        (tempered(IWAE(3, DReG()), 0.5), "DReG is not defined for IWAE with tempered latent sites"),
        (free_bits(ELBO(), {"w": 0.5}), r"names \['w'\], but the latent sites are \['z'\]"),
        (MAP(ELBO(), {"nothing": STANDARD()}, 3), "prior names 'nothing', but the trainable parameters are"),
        (MaximumLikelihood(), "observes everything"),
    ):
        with pytest.raises(ValueError, match=words):
            check(model, guide, objective, xs)
    with pytest.raises(ValueError, match="do not fall into 3 equal groups"):
        check(*build(), free_bits(ELBO(), 0.5, groups=3), xs)
