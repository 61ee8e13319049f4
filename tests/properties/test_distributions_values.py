"""Distributions at any shape, dtype and size of their parameters: their densities, from another direction."""

from __future__ import annotations

import math
from copy import deepcopy
from functools import partial

import pyro.distributions as dist
import pytest
import torch
from hypothesis import given
from hypothesis import settings as running
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.nn.functional import logsigmoid

import dlvm.distributions as room
from dlvm.distributions import (
    Autoregressive,
    Bernoulli,
    Coupling,
    FlowNormal,
    HouseholderBasis,
    LearnedScale,
    PermutedBasis,
    RationalQuadratic,
    SylvesterNormal,
    VonMisesFisher,
    VonMisesFisherDirection,
    positive,
)
from dlvm.distributions.student_t import StudentT

FAMILIES = {
    "diagonal": room.DiagonalNormal,
    "full rank": room.FullRankNormal,
    "low rank": room.LowRankNormal,
    "mixture": room.MixtureNormal,
    "student": room.DiagonalStudentT,
    "iaf": room.InverseAutoregressiveNormal,
    "planar": room.PlanarNormal,
    "radial": room.RadialNormal,
    "householder": room.HouseholderNormal,
    "sylvester": SylvesterNormal,
    "sylvester of reflections": partial(SylvesterNormal, basis=HouseholderBasis),
    "sylvester of permutations": partial(SylvesterNormal, basis=PermutedBasis),
    "real nvp": partial(FlowNormal, step=partial(Coupling, hidden=())),
    "spline coupling": partial(FlowNormal, step=partial(Coupling, bijection=RationalQuadratic(4)), depth=2),
    "spline autoregressive": partial(FlowNormal, step=partial(Autoregressive, hidden=(8,)), depth=2),
    "direction": lambda net, dim: VonMisesFisherDirection(net),
}
BATCHES = st.lists(st.integers(1, 3), max_size=2).map(tuple)
SEEDS = st.integers(0, 999)


def quick(examples: int):
    return running(max_examples=examples, deadline=None, derandomize=True, database=None)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def agree(name: str, examples: int) -> None:
    @quick(examples)
    @given(st.integers(1, 4), BATCHES, BATCHES, SEEDS)
    def property(dim, batch, draws, seed):
        densities_agree(name, dim, batch, draws, seed)

    property()


def finite(name: str, examples: int) -> None:
    @quick(examples)
    @given(st.integers(1, 4), st.sampled_from([0.0, 1.0, 1e2, 1e4]), SEEDS)
    def property(dim, size, seed):
        stays_finite(name, dim, size, seed)

    property()


def densities_agree(name: str, dim: int, batch: tuple[int, ...], draws: tuple[int, ...], seed: int) -> None:
    """Of one's own draws, of the same numbers from elsewhere, row by row, and expanded: one and the same."""
    torch.manual_seed(seed)
    family, h = FAMILIES[name](nn.Linear(3, 4), dim).double(), numbers(*batch, 3, seed=seed)
    q = family(h)
    z = q.rsample(draws)
    own = q.log_prob(z)
    assert q.batch_shape == batch and z.shape == (*draws, *batch, *q.event_shape) and own.shape == (*draws, *batch)
    foreign = family(h).log_prob(z.detach().clone())
    torch.testing.assert_close(foreign, own, atol=1e-8, rtol=1e-8)
    rows, events = h.reshape(-1, 3), z.detach().reshape(*draws, -1, *q.event_shape)
    alone = torch.stack([family(row).log_prob(events[..., i, :]) for i, row in enumerate(rows)], -1)
    torch.testing.assert_close(alone.view_as(own), own, atol=1e-8, rtol=1e-8)
    more = family(h).expand((2, *batch))
    z = more.rsample(draws)
    again = family(h).log_prob(z.detach().clone())
    torch.testing.assert_close(more.log_prob(z), again, atol=1e-8, rtol=1e-8)


def stays_finite(name: str, dim: int, size: float, seed: int) -> None:
    """Draws, densities and gradients, however far training has gone; single precision is no other density."""
    torch.manual_seed(seed)
    family, h = FAMILIES[name](nn.Linear(3, 4), dim), (size * numbers(5, 3, seed=seed)).float()
    q = family(h)
    z = q.rsample()
    own = q.log_prob(z)
    gradients = torch.autograd.grad(own.sum() + z.square().sum(), list(family.parameters()), allow_unused=True)
    for value in (z, own, *(g for g in gradients if g is not None)):
        assert value.isfinite().all()
    if size <= 1:
        twice = deepcopy(family).double()(h.double())
        z = z.detach().double() if name != "direction" else nn.functional.normalize(z.detach().double(), dim=-1)
        torch.testing.assert_close(own.double(), twice.log_prob(z), atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_draws_are_scored_alike_by_every_way_there_is(name):
    agree(name, 3)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_parameter_makes_a_draw_or_a_gradient_infinite(name):
    finite(name, 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_and_so_for_many_more(name):
    agree(name, 20)
    finite(name, 30)


@quick(40)
@given(
    st.sampled_from([1, 2, 97, 98, 99, 196, 300]), st.sampled_from([0.0, 1.0, 30.0, 1e4, 1e30]), SEEDS, st.booleans()
)
def test_bits_have_their_cross_entropy_at_any_width_and_any_logits(width, size, seed, strided):
    logits = (size * numbers(3, width, seed=seed)).float().requires_grad_()
    x = (numbers(3, width, seed=seed + 1) > 0).float()
    expected = logsigmoid(logits.double() * (2 * x - 1)).sum(-1)
    x = x.T.contiguous().T if strided else x
    found = Bernoulli(nn.Identity())(logits).log_prob(x)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-5)
    assert torch.autograd.grad(found.sum(), logits)[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float64, torch.float16])
def test_bits_of_any_dtype_are_the_same_bits(dtype):
    q, x = Bernoulli(nn.Identity())(numbers(5, 7).float()), numbers(5, 7, seed=1) > 0
    torch.testing.assert_close(q.log_prob(x.to(dtype)).float(), q.log_prob(x.float()))


@pytest.mark.parametrize("shape", [(5, 1), (1,), (), (5, 8), (7, 5)])
def test_bits_of_another_width_are_not_broadcast(shape):
    with pytest.raises(ValueError, match="value of shape .* is not broadcastable with logits of width 7"):
        Bernoulli(nn.Identity())(torch.zeros(5, 7)).log_prob(torch.zeros(shape))


def dense(q: dist.Distribution) -> dist.MultivariateNormal:
    """The same Gaussian with its covariance written out, in double precision."""
    if isinstance(q, dist.Independent):
        return dist.MultivariateNormal(q.base_dist.loc.double(), scale_tril=q.base_dist.scale.double().diag_embed())
    if isinstance(q, dist.LowRankMultivariateNormal):
        w, d = q.cov_factor.double(), q.cov_diag.double()
        return dist.MultivariateNormal(q.loc.double(), w @ w.mT + d.diag_embed())
    return dist.MultivariateNormal(q.loc.double(), scale_tril=q.scale_tril.double())


@quick(60)
@given(
    st.sampled_from(["full rank, diagonal", "low rank, diagonal", "diagonal, low rank", "low rank, full rank"]),
    st.integers(1, 4),
    st.sampled_from([(), (1,), (3,), (2, 1)]),
    st.sampled_from([(), (1,), (3,), (2, 3)]),
    st.sampled_from([1e-3, 1.0, 1e3]),
    SEEDS,
)
def test_divergences_are_those_of_the_covariances_written_out(pair, dim, q_batch, p_batch, size, seed):
    def gaussian(kind: str, batch: tuple[int, ...], seed: int) -> dist.Distribution:
        loc, scale = size * numbers(*batch, dim, seed=seed), size * numbers(*batch, dim, seed=seed + 1).exp()
        if kind == "diagonal":
            return dist.Normal(loc.float(), scale.float()).to_event(1)
        factor = size * numbers(*batch, dim, dim, seed=seed + 2)
        if kind == "low rank":
            return dist.LowRankMultivariateNormal(loc.float(), factor[..., :2].float(), scale.square().float())
        return dist.MultivariateNormal(loc.float(), scale_tril=(factor.tril(-1) + scale.diag_embed()).float())

    kinds = pair.split(", ")
    q, p = gaussian(kinds[0], q_batch, seed), gaussian(kinds[1], p_batch, seed + 5)
    found, batch = kl_divergence(q, p), torch.broadcast_shapes(q_batch, p_batch)
    expected = kl_divergence(dense(q).expand(batch), dense(p).expand(batch))
    assert found.shape == batch
    torch.testing.assert_close(found.double(), expected, atol=1e-2, rtol=1e-3)


@quick(40)
@given(st.floats(math.log(2.0), math.log(1e10)).map(math.exp), st.floats(-50, 50))
def test_a_students_density_keeps_its_digits_at_any_number_of_degrees_of_freedom(df, z):
    """Two log Gamma of size df log df cancel in it: in single precision 0.08 nats were lost at a million."""
    df, z = torch.tensor(df, dtype=torch.float32), torch.tensor(z, dtype=torch.float32)
    x = 0.5 * df.double()
    ratio = math.lgamma(x + 0.5) - math.lgamma(x) if df < 1e6 else 0.5 * math.log(x) - 1 / (8 * float(x))
    expected = (
        ratio - 0.5 * math.log(math.pi * df) - 0.5 * (df.double() + 1) * torch.log1p(z.double().square() / df.double())
    )
    found = StudentT(df, torch.tensor(0.0), torch.tensor(1.0)).log_prob(z)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    assert StudentT(df, torch.tensor(0.0), torch.tensor(1.0)).rsample((9,)).isfinite().all()


@quick(40)
@given(st.floats(-10, 10), SEEDS)
def test_a_direction_has_the_mean_and_density_of_double_precision(log_kappa, seed):
    """coth(kappa) - 1 / kappa cancels near 0: in single precision nothing was left of the mean at kappa = e^-10."""
    kappa = math.exp(log_kappa)
    loc = nn.functional.normalize(numbers(3, seed=seed), dim=-1)
    q, twice = VonMisesFisher(loc.float(), torch.tensor(kappa)), VonMisesFisher(loc, torch.tensor(kappa).double())
    exact = 1 / math.tanh(kappa) - 1 / kappa if kappa > 0.1 else kappa / 3 - kappa**3 / 45 + 2 * kappa**5 / 945
    torch.testing.assert_close(q.mean.norm().item(), exact, rtol=2e-5, atol=0.0)
    z = q.rsample((5,))
    double = nn.functional.normalize(z.double(), dim=-1)
    torch.testing.assert_close(q.log_prob(z).double(), twice.log_prob(double), atol=3e-2, rtol=1e-4)


def test_a_direction_stays_validated_in_a_plate():
    q = VonMisesFisher(torch.tensor([0.0, 0.0, 1.0]), torch.tensor(2.0)).expand([5])
    assert q.rsample().shape == (5, 3)
    with pytest.raises(ValueError, match="Sphere"):
        q.log_prob(torch.ones(5, 3))


@quick(40)
@given(st.integers(2, 20), st.sampled_from([1e-6, 0.5, 4.0, 1e6]), st.sampled_from([0.0, 1.0, 10.0]), SEEDS)
def test_a_spline_increases_and_comes_back_and_leaves_what_is_outside(bins, bound, size, seed):
    spline = RationalQuadratic(bins, bound)
    parameters = (size * numbers(spline.size, seed=seed)).expand(203, -1)
    y = bound * torch.cat([torch.linspace(-1, 1, 199), torch.tensor([-1e3, -1.01, 1.01, 1e3])]).double()
    z, log_slope = spline(y, parameters)
    assert (z[:199].diff() > 0).all() and (z[:199].abs() <= bound * (1 + 1e-12)).all()
    assert torch.equal(z[199:], y[199:]) and not log_slope[199:].any()
    torch.testing.assert_close(spline.inverse(z, parameters) / bound, y / bound, atol=1e-7, rtol=1e-7)
    inside = y[1:198].clone().requires_grad_()
    slopes = torch.autograd.grad(spline(inside, parameters[1:198])[0].sum(), inside)[0]
    torch.testing.assert_close(slopes.log(), log_slope[1:198], atol=1e-6, rtol=1e-6)


@quick(40)
@given(st.floats(width=32), st.floats(1e-30, 1e30))
def test_scales_are_positive_and_finite_whatever_they_are_made_of(raw, initial):
    scale = positive(torch.tensor(raw))
    assert math.isnan(raw) == bool(scale.isnan())
    assert math.isnan(raw) or math.exp(-10.001) < scale < math.exp(10.001)
    torch.testing.assert_close(LearnedScale(initial)().item(), initial, rtol=1e-4, atol=0.0)
