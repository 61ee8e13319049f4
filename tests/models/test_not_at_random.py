"""Numbers that are hidden by what they are: log p, moments and draws against quadrature, for any guide."""

from __future__ import annotations

import math
from copy import deepcopy
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close
from torch import nn

from dlvm.distributions import Bernoulli, ConstantScaleNormal, FixedScale, Missing, SelfMasking, Units
from dlvm.evidence import simulate
from dlvm.guides import Diagonal, FromModel, latents
from dlvm.inference import ELBO, IWAE, SVI, check, evaluate, fit, impute, load, log_px, save
from dlvm.models import VAE, NotAtRandom
from dlvm.nets import MLP, Filled

NAN = math.nan
ADAM = partial(torch.optim.Adam, lr=1e-2)
WEIGHT, LOC, NOISE = torch.tensor([1.0, -0.8, 0.6]), torch.tensor([0.3, 0.0, -0.5]), 0.6
BIAS, SLOPE = torch.tensor([0.2, 0.5, 0.0]), torch.tensor([-2.5, 1.5, 0.0])
X = torch.tensor([[NAN, 0.4, -0.2], [1.2, NAN, NAN], [NAN, NAN, NAN], [0.1, -1.0, 0.3], [NAN, 1.5, NAN]])
GRID = torch.linspace(-9, 9, 601, dtype=torch.float64)
STEP = math.log(0.03)


def build(slope=SLOPE, bias=BIAS) -> NotAtRandom:
    decoder, mechanism = nn.Linear(1, 3), SelfMasking(3)
    with torch.no_grad():
        decoder.weight.copy_(WEIGHT[:, None]), decoder.bias.copy_(LOC)
        mechanism.weight.copy_(slope), mechanism.bias.copy_(bias)
    return NotAtRandom(1, ConstantScaleNormal(decoder, FixedScale(NOISE)), mechanism).requires_grad_(False).eval()


def exact(x, slope=SLOPE, bias=BIAS):
    """log p(x, mask), E[x | x, mask] and its sd, by sums over z and over each missing number given z."""
    x, slope, bias, missing = x.double(), slope.double(), bias.double(), x.isnan()
    p = dist.Normal(GRID[:, None] * WEIGHT + LOC, NOISE)  # (z, d)
    there = p.log_prob(x.nan_to_num()[:, None]) + nn.functional.logsigmoid(bias + slope * x.nan_to_num())[:, None]
    hidden = p.log_prob(GRID[:, None, None]) + nn.functional.logsigmoid(-(bias + slope * GRID[:, None, None])) + STEP
    log_hidden = hidden.logsumexp(0)
    log_joint = torch.where(missing[:, None], log_hidden, there).sum(-1) + dist.Normal(0.0, 1.0).log_prob(GRID) + STEP
    z = log_joint.softmax(-1)  # (n, z)
    each = hidden.softmax(0)
    first, second = (z @ (each * GRID[:, None, None] ** k).sum(0) for k in (1, 2))
    sd = (second - first.square()).sqrt()
    return log_joint.logsumexp(-1), torch.where(missing, first, x), torch.where(missing, sd, 0)


def from_model(model, x=X):
    return FromModel(latents(model, x), Filled(MLP(6, 8)), model, left=("x_unobserved",))


def of_both(model, x=X):
    return Diagonal(latents(model, x), Filled(MLP(6, 8)))


def alone(x, n=1):
    """A guide that leaves what is missing to the model, by leaving it out."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.3).to_event(1))


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(params=[from_model, of_both, lambda model: alone], ids=["from model", "diagonal", "left out"])
def guide(request, model):
    pyro.set_rng_seed(0)
    return request.param(model)


@pytest.mark.slow
def test_log_p_and_what_is_missing_are_those_of_quadrature_and_not_those_at_random(model, guide):
    wanted, mean, sd = exact(X)
    scored = log_px(model, guide, X, num_particles=3000)
    assert ((scored.log_px - wanted) / scored.log_px_se).abs().max() < 4.5 and scored.log_px_se.max() < 0.15
    found, missing = impute(model, guide, X, num_particles=3000, num_draws=500), X.isnan()
    assert ((found.mean - mean)[missing] / found.mean_se[missing]).abs().max() < 4.5
    assert (found.sd[missing] / sd[missing] - 1).abs().max() < 0.15
    assert torch.equal(found.mean[~missing], X[~missing])
    assert (found.draws.mean(0) - mean)[missing].abs().max() < 0.2
    at_random = exact(X, torch.zeros(3))[1]
    assert ((mean - at_random)[missing] / found.mean_se[missing]).abs().max() > 10


def test_a_mechanism_that_sees_nothing_is_missing_at_random():
    """log p(x, mask) = log p(x) + log p(mask), and what is missing is what Missing says."""
    blind = build(torch.zeros(3))
    plain = VAE(1, blind.likelihood, blind.prior)
    rates = dist.Bernoulli(logits=BIAS).to_event(1).log_prob((~X.isnan()).float())
    one, other = (log_px(each, alone, X, num_particles=1000, seed=0) for each in (blind, plain))
    assert ((one.log_px - other.log_px - rates) / one.log_px_se).abs().max() < 6
    one, other = (impute(each, alone, X, num_particles=2000) for each in (blind, plain))
    missing = X.isnan()
    assert_close(one.mean[missing], other.mean[missing], atol=0.15)
    assert one.mean_se[missing].mean() < 2.5 * other.mean_se[missing].mean()  # by draws: nothing tells that it is blind


def test_a_row_of_which_all_is_missing_is_the_prior():
    plain, row = VAE(1, Missing(build().likelihood.likelihood)).eval(), X[2:3]
    guide = Diagonal(latents(plain, row), Filled(MLP(6, 8)))
    found = impute(plain, guide, row, num_particles=4000)
    assert ((found.mean - LOC) / found.mean_se).abs().max() < 4.5
    assert_close(found.sd[0], (WEIGHT.square() + NOISE**2).sqrt(), atol=0.06)
    scored = log_px(plain, guide, row, num_particles=4000)
    assert (scored.log_px / scored.log_px_se).abs() < 4.5 and scored.log_px_se < 0.05


def test_bounds_grow_with_particles_to_log_p(model):
    pyro.set_rng_seed(1)
    guide, rows, wanted = from_model(model), X.repeat(200, 1), exact(X)[0].mean()
    bounds = [-IWAE(num_particles=k).loss(model, guide, rows) / len(rows) for k in (1, 5, 100)]
    assert bounds[0] + 0.1 < bounds[1] and bounds[1] + 0.02 < bounds[2] < wanted + 0.03 and wanted - bounds[2] < 0.1


def test_what_is_left_to_the_model_leaves_every_weight(model):
    pyro.set_rng_seed(2)
    guide = from_model(model)
    drawn = pyro.poutine.trace(guide).get_trace(X)
    joint = pyro.poutine.trace(pyro.poutine.replay(model, drawn)).get_trace(X)
    for trace in (drawn, joint):
        trace.compute_log_prob()
    assert torch.equal(drawn.nodes["x_unobserved"]["log_prob"], joint.nodes["x_unobserved"]["log_prob"])
    assert not {id(p) for p in guide.parameters()} & {id(p) for p in model.parameters()}
    assert list(guide(X)) == ["z", "x_unobserved"]


def test_draws_are_hidden_at_the_models_rates(model):
    found = simulate(model, 20_000)
    x, complete = found.args[0], found.values["x_complete"]
    missing = x.isnan()
    assert torch.equal(x[~missing], complete[~missing])
    p = dist.Normal(LOC.double(), (WEIGHT.square() + NOISE**2).sqrt().double())
    rates = (p.log_prob(GRID[:, None]).exp() * torch.sigmoid(-(BIAS + SLOPE * GRID[:, None]))).sum(0) * 0.03
    assert ((missing.double().mean(0) - rates) / (rates * (1 - rates) / 20_000).sqrt()).abs().max() < 4
    mean = exact(X[2:3])[1]  # given that all is missing
    rows = complete[missing.all(1)].double()
    assert ((rows.mean(0) - mean[0]) / (rows.std(0) / len(rows) ** 0.5)).abs().max() < 4


@pytest.mark.slow
def test_training_finds_the_mechanism_and_a_captured_run_is_the_eager_one():
    torch.manual_seed(0)
    with torch.no_grad():
        rows = build()(n=600)

    def run(engine, epochs):
        pyro.set_rng_seed(0)
        model = build(torch.zeros(3)).requires_grad_(True).train()
        guide = from_model(model, rows)
        adam = lambda parameters: torch.optim.Adam(parameters, lr=5e-2)  # noqa: E731
        batches = [(part,) for part in rows.split(300)]
        options = {"optimizer": adam, "seed": 0, "engine": engine, "progress": False}
        return model, [e.train for e in fit(model, guide, IWAE(10), batches, epochs=epochs, **options)]

    (_, eager), (model, captured) = run("eager", 3), run("captured", 20)
    assert captured[:3] == eager
    assert model.mechanism.weight[0] < -1 and model.mechanism.weight[1] > 0.3


@pytest.mark.slow
def test_a_mechanism_of_all_numbers_fits_and_a_pair_is_saved(tmp_path):
    pyro.set_rng_seed(3)
    units = Units(LOC, torch.ones(3))
    for mechanism in (Bernoulli(MLP(3, 8, 3)), SelfMasking(3, torch.tensor([0.1, 0.5, 1.0]), units)):
        model = NotAtRandom(1, build().likelihood, mechanism)
        guide = from_model(model)
        check(model, guide, ELBO(), X)
        steps = [SVI(*deepcopy((model, guide)), ADAM, ELBO(), engine=engine) for engine in ("eager", "captured")]
        losses = []
        for svi in steps:
            pyro.set_rng_seed(4)
            losses.append([svi.step(X) for _ in range(3)])
        assert losses[0] == losses[1]
        before = log_px(model, guide, X, num_particles=20).log_px
    save(tmp_path / "pair", model, guide, X)
    again = load(tmp_path / "pair")
    assert torch.equal(log_px(*again, X, num_particles=20).log_px, before)
    assert again[1].model is again[0] and evaluate(*again, X, num_particles=5).log_px < 0
    assert_close(SelfMasking(3, torch.tensor([0.1, 0.5, 1.0]), units)(X[3]).mean, torch.tensor([0.1, 0.5, 0.999]))


def test_what_does_not_fit_is_refused(model):
    for mechanism, said in ((SelfMasking(2), "x must have 2 columns"), (Bernoulli(MLP(3, 2)), "mechanism makes masks")):
        with pytest.raises(ValueError, match=said):
            NotAtRandom(1, model.likelihood, mechanism)(X)
    spec = latents(model, X)
    for left in ((), ("z", "x_unobserved"), ("y",)):
        with pytest.raises(ValueError, match="left must be some of the latent sites"):
            FromModel(spec, Filled(MLP(6, 8)), model, left=left)
