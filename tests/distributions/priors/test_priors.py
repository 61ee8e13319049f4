"""Learned priors against Gaussians, quadrature, autograd's Jacobians and histograms of their own draws."""

from __future__ import annotations

from functools import partial

import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close
from torch import nn
from torch.autograd.functional import jacobian
from torch.distributions import kl_divergence

from dlvm.distributions import (
    Affine,
    ARDNormal,
    Autoregressive,
    Coupling,
    DiagonalNormal,
    FlowPrior,
    MixturePrior,
    RationalQuadratic,
    StandardNormal,
    positive,
)
from dlvm.inference.particles.analytic_kl import closed_form

FLOWS = {
    "real_nvp": FlowPrior,
    "spline": partial(FlowPrior, step=partial(Coupling, bijection=RationalQuadratic())),
    "maf": partial(FlowPrior, step=partial(Autoregressive, bijection=Affine(), hidden=(16,))),
}
PRIORS = {"ard": ARDNormal, "mixture": partial(MixturePrior, components=4), **FLOWS}
every_prior = pytest.mark.parametrize("prior", PRIORS)
every_flow = pytest.mark.parametrize("prior", FLOWS)


def build(prior: str, dim: int, size: float = 0.1) -> nn.Module:
    module = PRIORS[prior](dim).double()
    with torch.no_grad():
        for value in module.parameters():
            value.add_(size * torch.randn_like(value))
    return module


@pytest.mark.slow
@every_prior
def test_a_density_integrates_to_one_over_the_plane_and_its_draws_follow_it(prior):
    """In each of 16 parts of the plane the density has the mass that a histogram of draws has, up to 4 errors."""
    p, count, cuts = (
        build(prior, 2, 0.05)(),
        20_000,
        torch.tensor([-29, 1, 31]).double() / 30,
    )  # between points of the grid
    with torch.no_grad():
        axis = torch.linspace(-9, 9, 271).double()
        grid = torch.cartesian_prod(axis, axis)
        mass = p.log_prob(grid).exp() * (axis[1] - axis[0]) ** 2
        z = p.sample((count,))
    assert_close(mass.sum(), 1.0, 2e-4)
    cells = torch.bucketize(grid, cuts) @ torch.tensor([4, 1])
    drawn = torch.bucketize(z, cuts) @ torch.tensor([4, 1])
    expected = torch.zeros(16).double().index_add(0, cells, mass)
    found = torch.bincount(drawn, minlength=16) / count
    assert ((found - expected).abs() < 4 * (expected / count).sqrt() + 2e-4).all()


@every_flow
def test_a_flow_scores_by_the_jacobian_of_its_draws_and_its_passes_invert_one_another(prior):
    p = build(prior, 3)()
    noise = torch.randn(3).double()

    def drawn(y):
        for step in p.transforms:
            y = step(y)
        return y

    z = drawn(noise).detach()
    log_det = jacobian(drawn, noise).slogdet()[1]
    assert_close(p.log_prob(z), dist.Normal(torch.zeros(3).double(), 1.0).log_prob(noise).sum() - log_det, 1e-9)
    back = z
    for step in reversed(p.transforms):
        back = step.inv(back)
    assert_close(back, noise, 1e-9)


def test_an_autoregressive_prior_scores_in_one_pass_for_each_step():
    prior, calls = FLOWS["maf"](5, depth=3), []
    for step in prior.steps:
        step.made.register_forward_hook(lambda *_: calls.append(1))
    prior().log_prob(torch.randn(7, 5))
    assert len(calls) == 3
    prior().sample()
    assert len(calls) == 3 + 3 * 5


@every_prior
@pytest.mark.parametrize("dim", [1, 4])
def test_a_prior_starts_near_the_standard_normal_and_trains_every_parameter(prior, dim):
    module, z = PRIORS[prior](dim), torch.randn(200, dim)
    p, standard = module(), StandardNormal(dim)()
    assert (p.batch_shape, p.event_shape) == ((), (dim,)) and p.has_rsample
    assert (p.log_prob(z) - standard.log_prob(z)).mean().abs() < 0.3
    wide = p.expand((3, 5))
    draws = wide.rsample()
    assert draws.shape == (3, 5, dim) and wide.log_prob(draws).shape == (3, 5)
    assert_close(wide.log_prob(draws)[1, 2], p.log_prob(draws[1, 2].clone()), 1e-4)
    (p.log_prob(z) + (p.rsample((9,)) ** 3).sum()).sum().backward()
    for name, value in module.named_parameters():
        assert dim == 1 or (value.grad is not None and value.grad.abs().sum() > 0), name


def test_a_mixture_of_one_is_a_gaussian():
    one, z = MixturePrior(3, 1).double(), torch.randn(50, 3).double()
    assert_close(one().log_prob(z), StandardNormal(3).double()().log_prob(z), 1e-12)
    with torch.no_grad():
        one.loc.normal_()
        one.raw.normal_()
    gaussian = dist.Normal(one.loc[0], positive(one.raw[0])).to_event(1)
    assert_close(one().log_prob(z), gaussian.log_prob(z), 1e-12)


def test_the_kl_of_gaussians_is_closed_for_ard_alone():
    q = DiagonalNormal(nn.Linear(4, 8), 3)(torch.randn(5, 4))
    ard = PRIORS["ard"](3)
    with torch.no_grad():
        ard.raw.copy_(torch.tensor([-1.0, 0.0, 0.5]))
    z = q.rsample((10_000,))
    sampled = q.log_prob(z) - ard().log_prob(z)
    assert ((kl_divergence(q, ard()) - sampled.mean(0)).abs() < 4 * sampled.std(0) / 100).all()
    assert closed_form(q, ard()) is not None
    assert all(closed_form(q, PRIORS[name](3)()) is None for name in ("mixture", *FLOWS))
