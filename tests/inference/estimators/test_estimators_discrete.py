"""Discrete latents: exact means and variances by enumeration of all tuples of particles, and relaxations."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import (
    GOLDEN_SBN,
    X_SBN,
    assert_close,
    expected_bound,
    finite_difference,
    mean_and_variance,
    naive_score,
    vimco,
)
from oracles.forcing import Tempered, golden_sbn, gradient
from torch import nn

from dlvm.inference import (
    CIWAE,
    CUBO,
    ELBO,
    IWAE,
    MIWAE,
    NVIL,
    PIWAE,
    TVO,
    VIMCO,
    GumbelRao,
    GumbelSoftmax,
    MovingAverage,
    Objective,
    Renyi,
    ScoreFunction,
    Separate,
    StraightThrough,
    VRMax,
)
from dlvm.inference.estimators.soft_draws import noisy_behind

pytestmark = pytest.mark.usefixtures("float64")
THETA = 2 + 6 + 3

BOUNDS = {
    "ELBO(3)": partial(ELBO, 3),
    "IWAE(3)": partial(IWAE, 3),
    "Renyi(-1, 3)": partial(Renyi, -1.0, 3),
    "Renyi(.5, 2)": partial(Renyi, 0.5, 2),
    "VRMax(3)": partial(VRMax, 3),
    "MIWAE(2, 2)": partial(MIWAE, 2, 2),
    "CIWAE(.3, 3)": partial(CIWAE, 0.3, 3),
    "TVO(3)": partial(TVO, 3, 3, 0.2),
    "CUBO(2, 3)": partial(CUBO, 2, 3),
    "PIWAE(2, 2)": partial(PIWAE, 2, 2),
}


def average(value: float = -1.3) -> MovingAverage:
    made = MovingAverage()
    made.sum.fill_(value / 2)
    made.weight.fill_(0.5)
    return made


def nvil(x_dim: int = 3) -> ScoreFunction:
    return ScoreFunction(NVIL(nn.Linear(x_dim, 1)))


ESTIMATORS = {"plain": ScoreFunction, "average": lambda: ScoreFunction(average()), "NVIL": nvil, "VIMCO": VIMCO}


def exact(objective, lattice, parameters) -> torch.Tensor:
    """The gradient of the enumerated bound; PIWAE's is of two bounds, and CUBO's goes down, in phi alone."""
    k = objective.num_particles
    if isinstance(objective, Separate):
        parts = [gradient(lattice.expected(b.bound, k), parameters) for b in (objective.model, objective.guide)]
        return torch.cat([parts[0][:THETA], parts[1][THETA:]])
    found = gradient(lattice.expected(objective.bound, k), parameters)
    return torch.cat([0 * found[:THETA], -found[THETA:]]) if isinstance(objective, CUBO) else found


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("name", BOUNDS)
def test_score_estimators_are_unbiased_for_every_bound(name, estimator):
    """The mean over all tuples of particles, to 1e-10."""
    lattice, parameters = golden_sbn()
    objective = BOUNDS[name](estimator=ESTIMATORS[estimator]())
    expected = exact(objective, lattice, parameters)
    assert expected[THETA:].abs().min() > 1e-3
    assert_close(lattice.expected_gradient(objective, parameters), expected, 1e-10)


@pytest.mark.parametrize("estimator", [ScoreFunction(), VIMCO(), ScoreFunction(average())], ids=repr)
@pytest.mark.parametrize("objective", [ELBO, IWAE], ids=lambda objective: objective.__name__)
def test_a_tempered_site_is_still_drawn_as_often(objective, estimator):
    """Its densities count .3 times in the bound, and once in the score."""
    lattice, parameters = golden_sbn()
    colder = Tempered(0.3, "h")
    cold = lattice._replace(model=colder(lattice.model), guide=colder(lattice.guide))
    made = objective(num_particles=2, estimator=estimator)
    expected = exact(made, cold, parameters)
    assert (expected - exact(made, lattice, parameters)).abs().max() > 0.1
    assert_close(cold.expected_gradient(made, parameters), expected, 1e-10)


def test_golden_gradients_and_variances():
    """dL_3/dphi by finite differences, and what ORACLES and the hand-written estimators give for each outcome."""
    lattice, parameters = golden_sbn()

    def shifted(phi):
        return expected_bound(IWAE(3).bound, GOLDEN_SBN._replace(phi=phi), X_SBN, 3)

    slope = finite_difference(shifted, GOLDEN_SBN.phi)
    assert_close(slope, [0.12111208, 0.21254961], 1e-7)
    cases = [
        (ScoreFunction(), (4.398, 0.741), naive_score(GOLDEN_SBN, X_SBN, 3)),
        (VIMCO(), (0.1079, 0.1090), vimco(GOLDEN_SBN, X_SBN, 3)),
    ]
    for estimator, variances, by_hand in cases:
        found, mass = lattice.gradients(IWAE(3, estimator), parameters[-1:])
        mean, variance = mean_and_variance(found, mass)
        assert_close(mean, slope, 1e-8), assert_close(variance, variances, 1e-3)
        assert_close(found, by_hand, 1e-10)


def test_a_group_hears_of_its_own_bound_alone():
    """MIWAE's signal leaves out the other groups: it has less variance than the score of the whole bound."""
    lattice, parameters = golden_sbn()
    by_group, mass = lattice.gradients(MIWAE(2, 2, ScoreFunction()), parameters[-1:])
    without = replace(MIWAE(2, 2).bound, signal=None)
    whole, _ = lattice.gradients(Objective(without, 4, ScoreFunction()), parameters[-1:])
    (a, less), (b, more) = mean_and_variance(by_group, mass), mean_and_variance(whole, mass)
    assert_close(a, b, 1e-10)
    assert (less < 0.7 * more).all()


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [GumbelSoftmax(0.5), StraightThrough(0.5)], ids=repr)
@pytest.mark.parametrize("objective", [ELBO, IWAE], ids=lambda objective: objective.__name__)
def test_relaxations_fail_the_test_of_unbiasedness(objective, estimator):
    """The same comparison, by sampling: the worst coordinate of phi is off by more than 8 standard errors."""
    lattice, parameters = golden_sbn()
    made = objective(num_particles=2, estimator=estimator)
    t, _ = off_by(made, lattice, parameters)
    unbiased, _ = off_by(objective(num_particles=2, estimator=VIMCO()), lattice, parameters)
    assert t > 8 and unbiased < 4


@pytest.mark.slow
def test_the_bias_of_gumbel_softmax_falls_with_its_temperature():
    lattice, parameters = golden_sbn()
    (_, cold), (_, hot) = (off_by(ELBO(2, GumbelSoftmax(t)), lattice, parameters) for t in (0.1, 2.0))
    assert cold < 0.5 * hot


@pytest.mark.parametrize("binary", [True, False], ids=["bits", "classes"])
def test_noise_behind_a_hard_draw_leads_to_it_and_is_noise_as_any_other(binary):
    """argmax(logits + noise) is the draw again, and over draws the noise has the mean and variance of its law."""
    pyro.set_rng_seed(0)
    logits = torch.tensor([[0.7, -1.5, 0.2]])
    fn = dist.Bernoulli(logits=logits) if binary else dist.OneHotCategorical(logits=logits)
    hard = fn.sample((4000,))
    logits = logits if binary else logits.log_softmax(-1)
    noisy = noisy_behind(hard, logits.expand(hard.shape), binary, 5)
    noise = noisy - logits
    assert torch.equal(noisy > 0 if binary else noisy == noisy.amax(-1, keepdim=True), (hard == 1).expand_as(noisy))
    mean, variance = (0.0, math.pi**2 / 3) if binary else (0.5772156649, math.pi**2 / 6)
    se = math.sqrt(variance / len(hard))  # draws of one hard value are not independent
    assert (noise.mean((0, 1)) - mean).abs().max() < 4 * se
    assert (noise.var((0, 1)) / variance - 1).abs().max() < 0.12


@pytest.mark.parametrize("estimator", [GumbelSoftmax(0.5), StraightThrough(0.5), GumbelRao(0.5, 3)], ids=repr)
def test_classes_that_cannot_be_leave_no_nan_and_get_no_gradient(estimator):
    logits = torch.tensor([[0.4, -torch.inf, 0.3]], requires_grad=True)

    def program(x, seen=False):
        with pyro.plate("data", 1):
            z = pyro.sample("z", dist.OneHotCategorical(logits=logits))
            if seen:
                pyro.sample("x", dist.Normal(z @ torch.tensor([1.0, 2.0, -1.0]), 1.0), obs=x)

    pyro.set_rng_seed(0)
    loss = ELBO(4, estimator).differentiable_loss(partial(program, seen=True), program, torch.zeros(1))
    found = gradient(loss, [logits])
    assert loss.isfinite() and found.isfinite().all()
    assert found[1] == 0 and found[0].abs() > 1e-3


def test_rao_blackwell_takes_noise_and_leaves_the_mean():
    lattice, parameters = golden_sbn()
    x, rows = lattice.x.expand(400, -1), 400
    pyro.set_rng_seed(0)

    def gradients(estimator):
        losses = (IWAE(2, estimator).differentiable_loss(lattice.model, lattice.guide, x) / rows for _ in range(60))
        return -torch.stack([gradient(loss, parameters[-1:]) for loss in losses])

    plain, less = gradients(StraightThrough(0.3)), gradients(GumbelRao(0.3, 20))
    assert (less.var(0) < 0.8 * plain.var(0)).all()
    assert ((less.mean(0) - plain.mean(0)).abs() < 4.5 * ((less.var(0) + plain.var(0)) / 60).sqrt()).all()


def off_by(objective, lattice, parameters, rows=6000, repeats=30) -> tuple[float, float]:
    """Largest |t| and largest error over phi of the mean gradient."""
    expected = exact(objective, lattice, parameters)[THETA:]
    pyro.set_rng_seed(0)
    x = lattice.x.expand(rows, -1)
    losses = (objective.differentiable_loss(lattice.model, lattice.guide, x) / rows for _ in range(repeats))
    found = -torch.stack([gradient(loss, parameters[-1:]) for loss in losses])
    error = (found.mean(0) - expected).abs()
    return (error / found.std(0) * math.sqrt(repeats)).max().item(), error.max().item()


def test_relaxations_say_what_they_cannot_relax():
    def program(x, obs=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(torch.ones(3)))
            pyro.sample("x", dist.Normal(y.to(x), 1.0), obs=x) if obs else None

    for estimator in (GumbelSoftmax(), StraightThrough(), GumbelRao()):
        with pytest.raises(ValueError, match=r"cannot relax 'y' \(Categorical\).*OneHotCategorical for classes"):
            IWAE(2, estimator).loss(partial(program, obs=True), program, torch.zeros(2))
    with pytest.raises(ValueError, match="temperature must be positive and finite, got 0"):
        GumbelSoftmax(0)
