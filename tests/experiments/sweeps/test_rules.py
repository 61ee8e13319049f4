"""Rules of learning: which applies where, naive Monte Carlo's gradient by enumeration, and that each rule learns."""

from __future__ import annotations

import math
from itertools import product

import pyro
import pytest
import torch
from oracles import assert_close
from torch import nn

from dlvm.distributions import Bernoulli
from dlvm.experiments.data import Loader
from dlvm.experiments.sweeps.rules import CLIMBS, LABELS, RULES, Effort, FromPrior, Numbered, Task, applies, passes
from dlvm.guides import latents
from dlvm.inference import IWAE, VIMCO, log_weights
from dlvm.models import PPCA, VAE, GaussianMixture

draw = torch.Generator().manual_seed(0)
X = torch.randn(90, 2, generator=draw) @ torch.randn(2, 5, generator=draw) + 0.3 * torch.randn(90, 5, generator=draw)
TRAIN = Loader(X, batch_size=45)
EFFORT = Effort(hidden=(8,), num_particles=20, leaps=3, e_steps=2, lr=0.03)


def linear():
    pyro.set_rng_seed(0)
    return PPCA(torch.randn(5, 2), torch.zeros(5), 1.0)


def mixture():
    pyro.set_rng_seed(0)
    return GaussianMixture(2, 5, "diagonal", 1e-3).start_at(X)


def test_closed_forms_and_gradients_along_z_are_asked_for_where_there_are_any():
    vae = VAE(2, Bernoulli(nn.Linear(2, 5)))
    found = {
        name: {rule for rule in LABELS if applies(rule, model, Loader(data, batch_size=45))}
        for name, model, data in (("ppca", linear(), X), ("mixture", mixture(), X), ("vae", vae, (X > 0).float()))
    }
    assert found["ppca"] == set(LABELS) == set(CLIMBS) == set(RULES)
    assert set(LABELS) - found["mixture"] == {"aevb", "mcmc_em"}
    assert set(LABELS) - found["vae"] == {"em", "exact_gradient"}


def test_draws_of_the_prior_weigh_as_the_likelihood():
    model = linear()
    log_w = log_weights(model, FromPrior(model), X[:4], num_particles=3)
    assert log_w.shape == (3, 4) and (log_w <= 2 * -math.log(2 * math.pi)).all()  # a density of 5 numbers, scale 1
    assert list(latents(model, X)) == ["z"] and not list(FromPrior(model).parameters())


def test_naive_monte_carlo_follows_its_own_bound():
    """Its mean gradient, by the score where z is discrete, is that of E log mean_k p(x | z_k), enumerated."""
    model = mixture().double()
    with torch.no_grad():
        model.logits.copy_(torch.tensor([0.7, -0.4]))
        model.loc.copy_(0.3 * model.loc)
    x, groups, rows = X[:1].double(), 40, 200
    log_prior = model.logits.log_softmax(-1)
    log_likelihood = model.log_components(x)[0]
    bound = sum(
        (log_prior[i] + log_prior[j]).exp() * (torch.logsumexp(log_likelihood[[i, j]], 0) - math.log(2))
        for i, j in product(range(2), repeat=2)
    )
    exact = torch.autograd.grad(bound, [model.logits, model.loc])
    pyro.set_rng_seed(1)
    objective, found = IWAE(2, VIMCO()), [[], []]
    for _ in range(groups):
        loss = objective.differentiable_loss(model, FromPrior(model), x.expand(rows, -1))
        for each, slope in zip(found, torch.autograd.grad(loss, [model.logits, model.loc]), strict=True):
            each.append(-slope / rows)
    for each, wanted in zip(found, exact, strict=True):
        slopes = torch.stack(each)
        assert ((slopes.mean(0) - wanted) / (slopes.std(0) / groups**0.5 + 1e-9)).abs().max() < 4.5
    assert exact[0].abs().max() > 0.05


def test_numbers_of_data_change_nothing_for_the_model():
    model = linear()
    pyro.set_rng_seed(3)
    one = pyro.poutine.trace(model).get_trace(X).log_prob_sum()
    pyro.set_rng_seed(3)
    assert_close(pyro.poutine.trace(Numbered(model)).get_trace(X, torch.arange(90)).log_prob_sum(), one)
    batch = next(iter(Task(model, TRAIN, EFFORT, 0).numbered))
    assert_close(X[batch[1]], batch[0])


@pytest.mark.slow
@pytest.mark.parametrize("rule", LABELS)
@pytest.mark.parametrize("make", [linear, mixture])
def test_every_rule_learns(make, rule):
    model = make()
    if not applies(rule, model, TRAIN):
        return
    with torch.no_grad():
        before = model.log_px(X).mean().item()
    going = passes(rule, Task(model, TRAIN, EFFORT, 0))
    for _ in range(40):
        if next(going, True) is not None:
            break
    assert model.log_px(X).mean().item() > before + (0.02 if make is mixture else 1)
