"""Directions of any dimension: Bessel functions, von Mises-Fisher densities and draws, and the uniform density."""

from __future__ import annotations

import math

import pytest
import scipy.special
import torch
from oracles import assert_close
from torch.distributions import kl_divergence
from torch.nn import functional as F

from dlvm.distributions import SphericalPrior, SphericalUniform, VonMisesFisher
from dlvm.distributions.bessel import log_bessel
from dlvm.distributions.cosines import draw_below
from dlvm.distributions.von_mises_fisher import log_area

KAPPA = torch.tensor([1e-3, 0.1, 1.0, 5.0, 30.0, 200.0, 5000.0, 22026.0]).double()
dims = pytest.mark.parametrize("dim", [2, 4, 5, 40])


def at(dim, kappa):
    return VonMisesFisher(F.normalize(torch.ones(dim).double(), dim=0), torch.tensor(kappa).double())


def cosine_density(dim, kappa, count=20_001):
    """Angles, the distribution function there, and E cos, of exp(kappa cos t) sin(t)^(d-2), by the trapezoidal rule."""
    reach = min(math.pi, 2 * math.atan2(dim - 2, kappa) + 14 / math.sqrt(kappa + dim - 2))
    t = torch.linspace(0, reach, count).double()[1:]
    log_f = kappa * (t.cos() - 1) + (dim - 2) * t.sin().abs().clamp_min(1e-300).log()
    f = (log_f - log_f.max()).exp()
    below = torch.cat([torch.zeros(1).double(), ((f[1:] + f[:-1]) / 2).cumsum(0)])
    total = below[-1] + f[0] / 2
    return t, (below + f[0] / 2) / total, log_f.max() + (total * (t[1] - t[0])).log(), (f * t.cos()).sum() / f.sum()


@pytest.mark.parametrize("order", [0, 0.5, 1, 1.5, 9, 19, 30])
def test_bessel_functions_are_those_of_scipy_and_one_is_the_others_derivative(order):
    kappa = KAPPA.clone().requires_grad_()
    log_l, ratio = log_bessel(order, kappa)
    scaled = torch.tensor(scipy.special.ive(order, KAPPA.numpy()))
    there = scaled > 1e-300
    expected = scaled.log() - order * (KAPPA / 2).log() + math.lgamma(order + 1)
    assert there.sum() >= 6
    assert_close(log_l[there], expected[there], 1e-9)
    above = torch.tensor(scipy.special.ive(order + 1, KAPPA.numpy()))
    assert_close(ratio[there], (above / scaled)[there], 1e-10)
    assert_close(torch.autograd.grad((log_l + kappa).sum(), kappa)[0], ratio, 1e-9)


@dims
@pytest.mark.parametrize("kappa", [0.05, 3.0, 300.0])
def test_the_density_integrates_to_one_and_its_mean_is_that_of_the_integral(dim, kappa):
    """Over the sphere: the area of the sphere one dimension down, times the integral over the angle."""
    q = at(dim, kappa)
    _, _, log_integral, mean = cosine_density(dim, kappa)
    log_value = q.log_prob(q.loc)  # at angle 0, where exp(kappa (cos - 1)) is 1
    rest = math.log(2) if dim == 2 else log_area(dim - 1)
    assert_close(log_value + rest + log_integral, 0.0, 2e-3)
    assert_close((q.mean * q.loc).sum(), mean, 2e-3)
    across = torch.zeros(dim).double()
    across[0], across[1] = 1 / math.sqrt(2), -1 / math.sqrt(2)
    assert_close(q.log_prob(q.loc) - q.log_prob(across), kappa, 1e-9)


def test_in_three_dimensions_the_general_form_is_the_closed_one():
    log_l, ratio = log_bessel(0.5, KAPPA)
    q = VonMisesFisher(torch.eye(3)[0].double().expand(8, 3), KAPPA)
    assert_close(q.log_prob(torch.eye(3)[0].double()), -log_l - log_area(3), 1e-9)
    assert_close(q.mean[:, 0], ratio, 1e-8)


@dims
@pytest.mark.parametrize("kappa", [0.05, 3.0, 300.0])
def test_draws_have_the_distribution_function_of_the_density(dim, kappa):
    """The largest distance of the two, which exceeds 1.95 / sqrt(n) once in a thousand times."""
    q = at(dim, kappa)
    z = q.rsample((4000,))
    assert_close(z.norm(dim=-1), torch.ones(4000), 1e-12)
    angle = (z @ q.loc).clamp(-1, 1).acos().sort().values
    t, cdf, _, _ = cosine_density(dim, kappa)
    expected = cdf[torch.searchsorted(t, angle).clamp_max(len(t) - 1)]
    assert (expected - torch.arange(1, 4001) / 4000).abs().max() < 1.95 / 4000**0.5
    others = z - (z @ q.loc).unsqueeze(-1) * q.loc
    assert (others.mean(0).abs() < 5 * others.std(0) / 4000**0.5).all()


@dims
@pytest.mark.parametrize("kappa", [0.5, 20.0, 1000.0])
def test_draws_move_with_kappa_so_that_the_distribution_function_stays(dim, kappa):
    """The slope of each draw against that of the quantile that it is, by finite differences."""
    k = torch.full((300,), kappa).double().requires_grad_()
    below = draw_below(k, dim)
    (slope,) = torch.autograd.grad(below.sum(), k)
    angle = (1 - below.detach()).acos()
    step, found = 1e-2 * kappa, {}
    t, cdf, *_ = cosine_density(dim, kappa, 200_001)
    u = torch.lerp(*_around(t, cdf, angle))
    for side in (-1, 1):
        t, cdf, *_ = cosine_density(dim, kappa + side * step, 200_001)
        found[side] = torch.lerp(*_around(cdf, t, u)).cos()
    expected = -(found[1] - found[-1]) / (2 * step)
    middle = (u > 0.01) & (u < 0.99)
    assert_close(slope[middle], expected[middle], 5e-3 * expected.abs().max().item())


def _around(x, y, at):
    """y at the grid points on both sides of each, and how far between them it lies."""
    i = torch.searchsorted(x, at).clamp(1, len(x) - 1)
    return y[i - 1], y[i], (at - x[i - 1]) / (x[i] - x[i - 1])


@pytest.mark.parametrize("dim", [2, 3, 5, 40])
@pytest.mark.parametrize("kappa", [1e-3, 3.0, 300.0])
def test_the_kl_to_the_uniform_density_is_what_draws_say(dim, kappa):
    q, p = at(dim, kappa), SphericalPrior(dim).double()()
    z = q.sample((4000,))
    gap = q.log_prob(z) - p.log_prob(z)
    closed = kl_divergence(q, p)
    assert abs(gap.mean() - closed) < 5 * gap.std() / 4000**0.5 + 1e-12
    assert closed > 0
    assert_close(kl_divergence(VonMisesFisher(q.loc.float(), q.concentration.float()), p), closed, 1e-5 * closed.item())


def test_the_uniform_density_is_that_of_no_concentration_and_its_draws_have_no_direction():
    p = SphericalUniform(torch.zeros(4))
    z = p.rsample((4000,))
    assert_close(p.log_prob(z), torch.full((4000,), -math.log(2 * math.pi**2)), 1e-5)
    assert_close(z.norm(dim=-1), torch.ones(4000), 1e-5)
    assert (z.mean(0).abs() < 5 / 4000**0.5).all()
    assert_close((z.T @ z) / 4000, torch.eye(4) / 4, 0.03)
    wide = p.expand((7, 5))
    assert wide.rsample().shape == (7, 5, 4) and wide.log_prob(wide.sample()).shape == (7, 5)
    q = VonMisesFisher(torch.eye(4)[0], torch.tensor(1e-4))
    assert_close(q.log_prob(z), p.log_prob(z), 1e-3)
