"""Latent sites whose densities cannot be divided: scaled in one program, angles on the line, points for a density."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch.distributions import biject_to, constraints

from dlvm.evidence import annealed, calibration, defensive, gaps, importance, quadrature, sandwich, views
from dlvm.guides import Local
from dlvm.inference import evaluate, log_weights

X = torch.tensor([0.3, -1.2, 0.8, 2.0])
ESTIMATES = (evaluate, importance)
SETTINGS = dict(temperatures=2, leaps=1)
OTHERS = {
    "gaps": lambda model, guide: gaps(model, guide, X, local=lambda spec, n: Local(spec, n), steps=1, num_particles=2),
    "views": lambda model, guide: views(model, guide, X, num_particles=2),
    "defensive": lambda model, guide: defensive(model, guide, X, num_particles=2),
    "annealed": lambda model, guide: annealed(model, X, guide, num_chains=1, **SETTINGS),
    "sandwich": lambda model, guide: sandwich(model, guide, 4, example=(X,), num_particles=2, **SETTINGS),
    "calibration": lambda model, guide: calibration(model, guide, 20, num_particles=20, example=(X,)),
}


def programs(prior, posterior, of_model=1.0, of_prior=1.0, of_guide=1.0):
    def model(x):
        with pyro.plate("data", len(x)), poutine.scale(scale=of_model):
            with poutine.scale(scale=of_prior):
                z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)), poutine.scale(scale=of_guide):
            pyro.sample("z", posterior(x))

    return model, guide


def exact(x):
    return dist.Normal(x / 2, math.sqrt(0.5))


def refused(pair, words):
    for estimate in ESTIMATES:
        with pytest.raises(ValueError, match=words):
            estimate(*pair, X, num_particles=10)


@pytest.mark.parametrize(
    "scales",
    [dict(of_model=0.1), dict(of_prior=0.25), dict(of_prior=0.25, of_guide=0.25), dict(of_guide=0.5)],
    ids=str,
)
def test_a_latent_that_counts_otherwise_than_its_data_has_no_weight(scales):
    pair = programs(dist.Normal(0.0, 1.0), exact, **scales)
    refused(pair, "'z' has scale")
    with pytest.raises(ValueError, match="'z' has scale"):
        log_weights(*pair, X, num_particles=10)


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_everything_that_weighs_refuses_what_has_no_weight(other):
    with pytest.raises(ValueError, match="'z' has scale 0.25 in the model and the data 1.0"):
        other(*programs(dist.Normal(0.0, 1.0), exact, of_prior=0.25, of_guide=0.25))
    with pytest.raises(ValueError, match="'z' has scale 1.0 in the model and 0.5 in the guide"):
        other(*programs(dist.Normal(0.0, 1.0), exact, of_guide=0.5))
    with pytest.raises(ValueError, match="'z' one value, as a Delta"):
        other(*programs(dist.Normal(0.0, 1.0), lambda x: dist.Delta(x / 2)))


def test_models_alone_are_refused_likewise():
    model, _ = programs(dist.Normal(0.0, 1.0), exact, of_prior=0.25)
    with pytest.raises(ValueError, match="'z' has scale 0.25"):
        quadrature(model, X)
    with pytest.raises(ValueError, match="'z' has scale 0.25"):
        annealed(model, X, num_chains=1, **SETTINGS)


def test_a_scale_that_all_share_and_one_on_likelihoods_alone_are_weighed():
    shared = programs(dist.Normal(0.0, 1.0), exact, of_model=0.1, of_guide=0.1)
    right = dist.Normal(0.0, math.sqrt(2.0)).log_prob(X).mean().item()
    assert evaluate(*shared, X, num_particles=3).log_px == pytest.approx(right, abs=1e-5)


def test_a_point_is_no_weight_against_a_density_and_gives_the_joint_density():
    pair = programs(dist.Normal(0.0, 1.0), lambda x: dist.Delta(x / 2))
    refused(pair, "'z' one value, as a Delta")
    joint = dist.Normal(0.0, 1.0).log_prob(X / 2) + dist.Normal(X / 2, 1.0).log_prob(X)
    assert torch.allclose(log_weights(*pair, X), joint)


def test_a_delta_that_hands_on_an_auxiliary_draw_is_weighed():
    model, _ = programs(dist.Normal(0.0, 1.0), exact)

    def guide(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Normal(x, math.sqrt(2.0)), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Delta(u / 2, log_density=math.log(2.0)))

    right = dist.Normal(0.0, math.sqrt(2.0)).log_prob(X)
    assert torch.allclose(log_weights(model, guide, X, num_particles=3), right.expand(3, 4), atol=1e-5)


def test_an_angle_drawn_from_the_line_is_refused_and_one_from_a_period_is_weighed():
    angle = dist.VonMises(torch.zeros(()), torch.ones(()))
    refused(programs(angle, lambda x: dist.Normal(0 * x, 6.0)), "'z' is an angle")
    refused(programs(angle, lambda x: dist.TransformedDistribution(dist.Normal(0 * x, 6.0), [])), "'z' is an angle")
    around = biject_to(constraints.interval(-math.pi, math.pi))
    pair = programs(angle, lambda x: dist.TransformedDistribution(dist.Normal(0 * x, 1.5), [around]))
    u = torch.linspace(-math.pi, math.pi, 20001).double()[:-1]
    joint = angle.log_prob(u)[:, None] + dist.Normal(u[:, None], 1.0).log_prob(X.double())
    right = (joint.logsumexp(0) + math.log(u[1] - u[0])).mean().item()
    found = evaluate(*pair, X, num_particles=20_000)
    assert found.log_px == pytest.approx(right, abs=4 * found.log_px_se + 1e-3)
    assert found.log_px_se < 0.02
