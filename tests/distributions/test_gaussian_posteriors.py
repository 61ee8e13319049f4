"""The contract of every Gaussian conditional: a module, context -> Pyro distribution with event_dim 1."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import assert_close, grid, inverse
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import nn
from torch.distributions import MultivariateNormal

from dlvm.distributions import DiagonalNormal, FullRankNormal, InverseAutoregressiveNormal, StandardNormal, positive
from dlvm.nets import MLP

H, D = 3, 4
FAMILIES = {
    "diagonal": DiagonalNormal,
    "full_rank": FullRankNormal,
    "iaf": InverseAutoregressiveNormal,
    "iaf_linear": lambda net, dim: InverseAutoregressiveNormal(net, dim, depth=1, hidden=()),
}


def perturbed(module: nn.Module, size: float = 0.1) -> nn.Module:
    with torch.no_grad():
        for value in module.parameters():
            value.add_(size * torch.randn_like(value))
    return module


def build(family: str, dim: int = D, size: float = 0.1) -> nn.Module:
    return perturbed(FAMILIES[family](MLP(H, 8, 6), dim).double(), size)


every_family = pytest.mark.parametrize("family", FAMILIES)


@every_family
def test_shapes_follow_the_context_and_particles_broadcast(family):
    q = build(family)(torch.randn(5, H).double())
    assert (q.batch_shape, q.event_shape) == ((5,), (D,))
    assert q.has_rsample and isinstance(q, TorchDistributionMixin)
    z = q.rsample((7,))
    assert z.shape == (7, 5, D) and q.log_prob(z).shape == (7, 5)
    z = q.expand((7, 5)).rsample()
    assert z.shape == (7, 5, D) and q.expand((7, 5)).log_prob(z).shape == (7, 5)


@every_family
def test_context_with_particles_gives_each_its_own_density(family):
    module, h = build(family), torch.randn(7, 5, H).double()
    z = module(h).rsample()
    log_q = module(h).log_prob(z)
    assert log_q.shape == (7, 5)
    assert_close(log_q[3, 2], module(h[3, 2]).log_prob(z[3, 2]), 1e-10)


@every_family
def test_context_changes_the_output(family):
    module, z = build(family), torch.randn(D).double()
    a, b = module(torch.randn(H).double()).log_prob(z), module(torch.randn(H).double()).log_prob(z)
    assert (a - b).abs() > 1e-3


@every_family
def test_every_parameter_gets_a_gradient(family):
    module = build(family)
    q = module(torch.randn(9, H).double())
    z = q.rsample()
    (q.log_prob(z) + (z**3).sum(-1)).sum().backward()
    for name, value in module.named_parameters():
        assert value.grad is not None and value.grad.abs().sum() > 0, name


@every_family
@pytest.mark.parametrize("dim", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_density_integrates_to_one(family, dim):
    module = build(family, dim=dim)
    q = module(torch.randn(H).double())
    draws = q.rsample((2000,))
    centre, width = draws.mean(0), 9 * draws.std(0).max().item()
    z, log_cell = grid(width, 201 if dim == 2 else 1001, dim)
    with torch.no_grad():
        assert_close(q.log_prob(centre + z).logsumexp(0) + log_cell, 0.0, 1e-5)


@every_family
def test_density_of_own_samples_equals_that_of_a_clone(family):
    q = build(family)(torch.randn(5, H).double())
    z = q.rsample((6,))
    assert_close(q.log_prob(z), q.log_prob(z.clone()), 1e-9)


@every_family
def test_score_gradient_does_not_depend_on_who_drew_the_sample(family):
    """d log q(z) / d phi at a fixed z: drawing z from the same distribution object must change nothing."""
    module = build(family)
    q = module(torch.randn(5, H).double())
    z = q.sample()
    own = torch.autograd.grad(q.log_prob(z).sum(), list(module.parameters()), retain_graph=True, allow_unused=True)
    fixed = torch.autograd.grad(q.log_prob(z.clone()).sum(), list(module.parameters()), allow_unused=True)
    for (name, _), a, b in zip(module.named_parameters(), own, fixed, strict=True):
        assert a is not None, name
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


@every_family
def test_samples_follow_the_density(family):
    """E_q q0(z)/q(z) = 1 for any density q0 with lighter tails, here the moment-matched Gaussian, shrunk."""
    q = build(family)(torch.randn(H).double())
    z = q.sample((20_000,))
    narrow = MultivariateNormal(z.mean(0), 0.5 * z.T.cov())
    ratio = (narrow.log_prob(z) - q.log_prob(z)).exp()
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / math.sqrt(len(z))


@every_family
def test_state_dict_round_trip_is_exact(family):
    module, other, h = build(family), build(family), torch.randn(5, H).double()
    z = torch.randn(5, D).double()
    assert not torch.equal(module(h).log_prob(z), other(h).log_prob(z))
    other.load_state_dict(module.state_dict())
    assert torch.equal(module(h).log_prob(z), other(h).log_prob(z))


@every_family
@pytest.mark.parametrize("size", [-1e4, 1e4])
def test_extreme_contexts_stay_finite_in_single_precision(family, size):
    module = perturbed(FAMILIES[family](MLP(H, 8, 6), D))
    h = size * torch.randn(50, H)
    z = module(h).rsample()
    assert z.isfinite().all()
    z.mean().backward()
    for name, value in module.named_parameters():
        assert value.grad.isfinite().all(), name


@pytest.mark.parametrize("family", ["diagonal", "iaf", "iaf_linear"])
@pytest.mark.parametrize("size", [-1e4, 1e4])
def test_extreme_contexts_score_their_own_samples(family, size):
    """log q of an own sample is that of its noise and the scales: never far below -D log(scale)."""
    q = perturbed(FAMILIES[family](MLP(H, 8, 6), D))(size * torch.randn(50, H))
    log_q = q.log_prob(q.rsample())
    assert log_q.isfinite().all() and log_q.abs().max() < 1e7


@pytest.mark.parametrize("size", [-1e4, 1e4])
def test_extreme_contexts_keep_the_covariance_factor_invertible(size):
    factor = perturbed(FullRankNormal(MLP(H, 8, 6), D))(size * torch.randn(50, H)).scale_tril
    diagonal = factor.diagonal(dim1=-2, dim2=-1)
    assert factor.isfinite().all() and (diagonal > 0).all() and torch.equal(factor, factor.tril())


@pytest.mark.parametrize("dim", [4, 32])
def test_full_rank_scores_its_own_samples_in_single_precision(dim):
    """log q of an own sample is that of its noise, -|eps|^2 / 2 - sum log diag L, with no loss of digits.

    The condition number of a random triangular L grows exponentially with its size: solving for eps fails.
    """
    q = perturbed(FullRankNormal(MLP(H, 8, 6), dim))(3 * torch.randn(200, H))
    log_det = q.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_q = q.log_prob(q.rsample())
    squared_noise = -2 * (log_q + log_det) - dim * math.log(2 * math.pi)
    assert squared_noise.max() < dim + 12 * math.sqrt(2 * dim)
    assert squared_noise.min() > -1e-3


@every_family
def test_one_dimension_is_enough(family):
    q = FAMILIES[family](MLP(H, 8, 6), 1)(torch.randn(5, H))
    assert q.log_prob(q.rsample()).shape == (5,)


@pytest.mark.parametrize("raw", [-math.inf, -1e4, -20.0, 0.0, 20.0, 1e4, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scale_reaches_neither_zero_nor_infinity(raw, dtype):
    scale = positive(torch.tensor(raw, dtype=dtype))
    assert 0 < scale < math.inf and 0 < scale**2 < math.inf and (1 / scale**2).isfinite()


def test_scale_is_the_exponential_near_zero_and_increases():
    raw = torch.linspace(-0.5, 0.5, 101).double()
    assert_close(positive(raw), raw.exp(), 2e-3)
    wide = positive(torch.linspace(-60, 60, 501).double())
    assert (wide.diff() > 0).all()


def test_a_wide_posterior_is_reached_as_fast_as_a_narrow_one():
    """Adam takes a scale from 10 to 100 in about the steps from 1 to 10; a softplus would take ten times as many."""
    steps = []
    for start in (0.0, 2.3):  # scales of 1 and 10
        raw = torch.tensor(start).double().requires_grad_()
        adam, target, n = torch.optim.Adam([raw], lr=0.01), 10 * positive(raw.detach()), 0
        while positive(raw) < 0.95 * target:
            adam.zero_grad()
            (0.5 * (positive(raw) / target) ** 2 - positive(raw).log()).backward()
            adam.step()
            n += 1
        steps.append(n)
    assert steps[1] < 1.5 * steps[0] < 600


def test_diagonal_normal_is_the_normal_it_says():
    module, h, z = build("diagonal"), torch.randn(5, H).double(), torch.randn(5, D).double()
    loc, raw = module.head(module.net(h)).chunk(2, -1)
    scale = positive(raw)
    expected = -0.5 * (((z - loc) / scale) ** 2 + 2 * scale.log() + math.log(2 * math.pi)).sum(-1)
    assert_close(module(h).log_prob(z), expected, 1e-12)


def test_full_rank_covers_any_covariance_and_correlates_every_pair():
    module = FullRankNormal(MLP(H), 3).double()
    target = torch.tensor([[2.0, 0, 0], [0.7, 0.5, 0], [-1.1, 0.3, 1.5]]).double()
    with torch.no_grad():
        module.head.weight.zero_()
        rows, columns = torch.tril_indices(3, 3, -1)
        raw = inverse(positive, target.diagonal())
        module.head.bias.copy_(torch.cat([torch.zeros(3), raw, target[rows, columns]]))
    assert_close(module(torch.randn(H).double()).scale_tril, target, 1e-12)
    correlation = build("full_rank")(torch.randn(H).double()).covariance_matrix
    assert correlation.abs().min() > 1e-6


def test_standard_normal_moves_with_its_module_and_needs_no_context():
    prior = StandardNormal(3).double()
    z = torch.randn(5, 3).double()
    assert_close(prior().log_prob(z), -0.5 * (z.square().sum(-1) + 3 * math.log(2 * math.pi)), 1e-12)
    assert not list(prior.parameters()) and set(prior.state_dict()) == {"loc", "scale"}
    assert prior().base_dist.loc.dtype == torch.float64 and prior.float()().base_dist.loc.dtype == torch.float32
