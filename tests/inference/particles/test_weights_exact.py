"""Importance weights are p(x, z) / q(z | x), one per particle and datum, whatever plates surround the sites."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import GOLDEN_1, GOLDEN_2, X_1, X_2, Q, assert_close

from dlvm.inference import log_weights
from dlvm.inference.particles.weights import weigh
from dlvm.inference.programs.pair import Pair

pytestmark = pytest.mark.usefixtures("float64")
K = pytest.mark.parametrize("num_particles", [1, 4])
TABLE = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.0, -0.5]], dtype=torch.float64)


def density(value, loc=0.0, scale=1.0):
    """log N(value; loc, scale^2), elementwise."""
    return -0.5 * ((value - loc) / scale) ** 2 - math.log(scale) - 0.5 * math.log(2 * math.pi)


@K
@pytest.mark.parametrize(
    "oracle, x, log_px", [(GOLDEN_1, X_1, -8.34168339), (GOLDEN_2, X_2, -10.90501500)], ids=["golden 1", "golden 2"]
)
def test_every_particle_of_the_exact_posterior_weighs_log_px(pair, oracle, x, log_px, num_particles):
    xs = torch.stack([x, x + 0.5, x * 2])
    log_w = log_weights(*pair(oracle, oracle.posterior), xs, num_particles=num_particles)
    assert log_w.shape == (num_particles, 3)
    assert_close(log_w, oracle.log_px(xs).expand(num_particles, 3), 1e-9)
    assert_close(log_w[:, 0], torch.full((num_particles,), log_px), 5e-9)


@K
def test_the_mean_weight_is_an_unbiased_estimate_of_px(pair, num_particles):
    """Within 4 standard errors over 40 000 independent estimates."""
    log_w = log_weights(*pair(GOLDEN_1, lambda x: Q), X_1.expand(40_000, -1), num_particles=num_particles)
    ratio = (log_w - GOLDEN_1.log_px(X_1)).exp().mean(0)
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / 200 < 0.02


@K
def test_terms_are_the_likelihood_and_the_ratio_of_guide_to_prior(pair, num_particles):
    model, guide = pair(GOLDEN_1, lambda x: Q)
    xs = torch.stack([X_1, X_1 + 1])
    weights = weigh(Pair(model, guide), (xs,), {}, num_particles)
    z = weights.latents["z"].reshape(num_particles, 2, 2)
    assert weights.latents["z"].shape == ((4, 2, 2) if num_particles > 1 else (2, 2))
    assert_close(weights.log_ratio, Q.log_prob(z) - density(z).sum(-1), 1e-10)
    assert_close(weights.log_likelihood, GOLDEN_1.log_joint(xs, z) - density(z).sum(-1), 1e-10)
    assert torch.equal(weights.log_w, weights.log_likelihood - weights.log_ratio) and weights.scale == 1.0


def without_plate(loc, scale, observed):
    def program(x):
        z = pyro.sample("z", dist.Normal(loc, scale))
        if observed:
            pyro.sample("x", dist.Normal(z, 0.5), obs=x[0, 0])

    return program


def matrix_event(loc, scale, observed):
    def program(x):
        with pyro.plate("data", 2):
            z = pyro.sample("z", dist.Normal(loc, scale).expand([3, 5]).to_event(2))
            if observed:
                pyro.sample("x", dist.Normal(z.sum(-1), 0.5).to_event(1), obs=x)

    return program


def nested_plates(loc, scale, observed):
    def program(x):
        with pyro.plate("rows", 2, dim=-2), pyro.plate("columns", 3, dim=-1):
            z = pyro.sample("z", dist.Normal(loc, scale))
            if observed:
                pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    return program


def pixels_in_a_plate(loc, scale, observed):
    def program(x):
        with pyro.plate("data", 2, dim=-1):
            z = pyro.sample("z", dist.Normal(loc, scale))
            if observed:
                with pyro.plate("pixels", 3, dim=-2):
                    pyro.sample("x", dist.Normal(z, 0.5), obs=x.T)

    return program


def inner_latents(loc, scale, observed):
    def program(x):
        with pyro.plate("data", 2, dim=-2):
            a = pyro.sample("a", dist.Normal(loc, scale))
            with pyro.plate("pixels", 3, dim=-1):
                z = pyro.sample("z", dist.Normal(loc, scale))
                if observed:
                    pyro.sample("x", dist.Normal(a + z, 0.5), obs=x)

    return program


# From the draws to (log p(x|z), log q/p), each (num_particles, batch), written out by hand.
def _ratio(z):
    return density(z, 0.3, 2.0) - density(z)


CASES = {
    without_plate: (1, lambda z: (density(TABLE[0, 0], z, 0.5), _ratio(z))),
    matrix_event: (2, lambda z: (density(TABLE, z.sum(-1), 0.5).sum(-1), _ratio(z).sum((-1, -2)))),
    nested_plates: (6, lambda z: (density(TABLE, z, 0.5).flatten(-2), _ratio(z).flatten(-2))),
    pixels_in_a_plate: (2, lambda z: (density(TABLE.T, z.unsqueeze(-2), 0.5).sum(-2), _ratio(z))),
}


@K
@pytest.mark.parametrize("program", CASES)
def test_each_arrangement_of_plates_gives_the_weights_of_the_formula(program, num_particles):
    batch, by_hand = CASES[program]
    weights = weigh(Pair(program(0.0, 1.0, True), program(0.3, 2.0, False)), (TABLE,), {}, num_particles)
    z = weights.latents["z"]
    if program is pixels_in_a_plate and num_particles > 1:
        z = z.squeeze(-2)
    likelihood, ratio = (term.reshape(num_particles, batch) for term in by_hand(z))
    assert weights.log_w.shape == (num_particles, batch)
    assert_close(weights.log_likelihood, likelihood, 1e-10)
    assert_close(weights.log_ratio, ratio, 1e-10)


@K
def test_latents_of_an_inner_plate_are_summed_into_their_datum(num_particles):
    weights = weigh(Pair(inner_latents(0.0, 1.0, True), inner_latents(0.3, 2.0, False)), (TABLE,), {}, num_particles)
    a, z = (weights.latents[name].reshape(num_particles, 2, -1) for name in "az")
    assert a.shape[-1] == 1 and z.shape[-1] == 3
    assert_close(weights.log_likelihood, density(TABLE, a + z, 0.5).sum(-1), 1e-10)
    assert_close(weights.log_ratio, _ratio(a).sum(-1) + _ratio(z).sum(-1), 1e-10)


def test_particles_are_independent_draws_and_rows_have_their_own(pair):
    log_w = log_weights(*pair(GOLDEN_1, lambda x: Q), X_1.expand(3, -1), num_particles=5)
    assert len(set(log_w.flatten().tolist())) == 15


def test_one_pair_of_programs_serves_data_of_any_length(pair):
    programs = pair(GOLDEN_1, lambda x: Q)
    for n in (3, 1, 7):
        assert log_weights(*programs, X_1.expand(n, -1), num_particles=2).shape == (2, n)


@pytest.mark.parametrize("num_particles", [0, -1])
def test_too_few_particles_are_refused(pair, num_particles):
    with pytest.raises(ValueError, match=f"num_particles must be at least 1, got {num_particles}"):
        log_weights(*pair(GOLDEN_1, lambda x: Q), X_1[None], num_particles=num_particles)
