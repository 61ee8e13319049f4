"""What masks, scales and subsampled plates do to weights: a shared scale belongs to the bound, never to the weight."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import GOLDEN_1, X_1, Gaussian, Q, assert_close
from pyro import poutine

from dlvm.inference import IWAE, Renyi, log_weights
from dlvm.inference.particles.weights import weigh
from dlvm.inference.programs.pair import Pair

pytestmark = pytest.mark.usefixtures("float64")
XS = torch.stack([X_1, X_1 + 1, -X_1])
K = pytest.mark.parametrize("num_particles", [1, 4])


@pytest.fixture
def programs(pair):
    return pair(GOLDEN_1, lambda x: Q)


def seeded(*programs, num_particles, args=(XS,)):
    pyro.set_rng_seed(3)
    return weigh(Pair(*programs), args, {}, num_particles)


@K
@pytest.mark.parametrize("scale", [0.25, 3.0, torch.tensor(0.0)], ids=["0.25", "3", "0-d tensor"])
def test_a_scale_around_both_programs_leaves_the_weights_alone(programs, scale, num_particles):
    if isinstance(scale, torch.Tensor):
        scale = scale + 0.5
    plain = seeded(*programs, num_particles=num_particles)
    scaled = seeded(*(poutine.scale(p, scale=scale) for p in programs), num_particles=num_particles)
    assert_close(scaled.log_w, plain.log_w, 1e-12)
    assert plain.scale == 1.0 and scaled.scale == scale


def test_a_scale_per_datum_is_kept_per_datum(programs):
    scale = torch.tensor([1.0, 0.5, 4.0])
    plain = seeded(*programs, num_particles=4)
    scaled = seeded(*(poutine.scale(p, scale=scale) for p in programs), num_particles=4)
    assert_close(scaled.log_w, plain.log_w, 1e-12)
    assert_close(scaled.scale, scale, 0)
    pyro.set_rng_seed(3)
    loss = IWAE(4).loss(*(poutine.scale(p, scale=scale) for p in programs), XS)
    assert_close(loss, -(IWAE(4).bound(plain.log_w) * scale).sum(), 1e-10)


@K
def test_a_scale_on_the_latent_sites_alone_tempers_them(num_particles):
    """log p(x|z) - beta log q/p: what a tempered objective is made of."""

    def program(loc, beta, observed=True):
        def run(x):
            with pyro.plate("data", len(x)):
                with poutine.scale(scale=beta):
                    z = pyro.sample("z", dist.Normal(torch.full((4,), loc), 1.0).to_event(1))
                if observed:
                    pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)

        return run

    plain = seeded(program(0.0, 1.0), program(0.3, 1.0, False), num_particles=num_particles)
    cold = seeded(program(0.0, 0.1), program(0.3, 0.1, False), num_particles=num_particles)
    assert_close(cold.log_w, plain.log_likelihood - 0.1 * plain.log_ratio, 1e-10)
    assert cold.scale == 1.0


@K
def test_a_masked_datum_weighs_nothing(programs, num_particles):
    kept = torch.tensor([True, False, True])
    plain = seeded(*programs, num_particles=num_particles)
    masked = seeded(*(poutine.mask(p, mask=kept) for p in programs), num_particles=num_particles)
    assert_close(masked.log_w, torch.where(kept, plain.log_w, 0.0), 0)


@K
def test_a_mask_around_the_observation_leaves_the_prior(num_particles):
    """Row 1 is unobserved: its weight is p(z)/q(z) and its bound 0 where q is the prior."""
    kept = torch.tensor([True, False, True])

    def model(x):
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))
            with poutine.mask(mask=kept):
                pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", 3):
            pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))

    weights = seeded(model, guide, num_particles=num_particles)
    z = weights.latents["z"].reshape(num_particles, 3, 4)
    expected = dist.Normal(z, 0.5).log_prob(XS).sum(-1)
    assert_close(weights.log_w, torch.where(kept, expected, 0.0), 1e-10)


@K
def test_a_mask_per_pixel_drops_only_those_pixels(num_particles):
    kept = XS > 0

    def program(observed):
        def run(x):
            with pyro.plate("data", 3, dim=-2):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                if observed:
                    with pyro.plate("pixels", 4, dim=-1), poutine.mask(mask=kept):
                        pyro.sample("x", dist.Normal(z, 0.5), obs=x)

        return run

    weights = seeded(program(True), program(False), num_particles=num_particles)
    z = weights.latents["z"].reshape(num_particles, 3, 1)
    expected = torch.where(kept, dist.Normal(z, 0.5).log_prob(XS), 0.0).sum(-1)
    assert_close(weights.log_w, expected, 1e-10)


def subsampled(full, **inner):
    """The golden model in a plate of `full` data of which the batch is a part; `inner` subsamples pixels as well."""

    def model(x):
        with pyro.plate("data", full, subsample_size=len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            mean = z @ GOLDEN_1.weight.T + GOLDEN_1.mu
            if not inner:
                pyro.sample("x", dist.Normal(mean, GOLDEN_1.s2.sqrt()).to_event(1), obs=x)
            else:
                with pyro.plate("pixels", 4, dim=-2, **inner) as i:
                    pyro.sample("x", dist.Normal(mean.mT[..., i, :], GOLDEN_1.s2.sqrt()), obs=x.T[i])

    def guide(x):
        loc, cov = Gaussian(*GOLDEN_1.posterior(x))
        with pyro.plate("data", full, subsample_size=len(x), dim=-1):
            pyro.sample("z", dist.MultivariateNormal(loc, cov))

    return model, guide


@K
def test_a_subsampled_plate_scales_the_bound_and_not_the_weights(num_particles):
    weights = seeded(*subsampled(400), num_particles=num_particles)
    assert_close(weights.log_w, GOLDEN_1.log_px(XS).expand(num_particles, 3), 1e-9)
    assert_close(weights.scale, 400 / 3, 1e-12)


@pytest.mark.parametrize("objective", [IWAE(3), Renyi(0.5, 3), IWAE(1)], ids=repr)
def test_a_subsampled_inner_plate_is_refused_by_name(objective):
    model, guide = subsampled(3, subsample_size=2)
    with pytest.raises(ValueError, match=r"plate 'pixels' around site 'x' is subsampled \(2 of 4\).*use ELBO"):
        objective.loss(model, guide, XS)


def test_an_inner_plate_that_is_whole_is_summed():
    assert_close(log_weights(*subsampled(3, subsample_size=4), XS), GOLDEN_1.log_px(XS)[None], 1e-9)
