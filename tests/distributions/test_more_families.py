"""Low-rank Gaussians, mixtures, Student-t variables, flows of couplings and splines, and directions on the sphere."""

from __future__ import annotations

import math
from functools import partial

import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close, grid
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import nn
from torch.autograd.functional import jacobian
from torch.distributions import MultivariateNormal, kl_divergence

from dlvm.distributions import (
    Affine,
    Autoregressive,
    Coupling,
    DiagonalStudentT,
    FlowNormal,
    LowRankNormal,
    MixtureNormal,
    RationalQuadratic,
    ReparametrisedMixture,
    VonMisesFisher,
    VonMisesFisherDirection,
    positive,
)
from dlvm.nets import MLP

H, D = 3, 4
FLOWS = {
    "real_nvp": partial(FlowNormal, step=Coupling),
    "real_nvp_linear": partial(FlowNormal, step=partial(Coupling, hidden=()), depth=3),
    "spline_coupling": partial(FlowNormal, step=partial(Coupling, bijection=RationalQuadratic()), depth=2),
    "spline_autoregressive": partial(FlowNormal, step=partial(Autoregressive, hidden=(16,)), depth=2),
    "affine_autoregressive": partial(FlowNormal, step=partial(Autoregressive, bijection=Affine()), depth=2),
    "spline_autoregressive_linear": partial(FlowNormal, step=partial(Autoregressive, hidden=()), depth=1),
}
FAMILIES = {"low_rank": LowRankNormal, "mixture": MixtureNormal, "student_t": DiagonalStudentT, **FLOWS}
every_family = pytest.mark.parametrize("family", FAMILIES)
every_flow = pytest.mark.parametrize("family", FLOWS)


def perturbed(module: nn.Module, size: float = 0.1) -> nn.Module:
    with torch.no_grad():
        for value in module.parameters():
            value.add_(size * torch.randn_like(value))
    return module


def build(family: str, dim: int = D, size: float = 0.1) -> nn.Module:
    return perturbed(FAMILIES[family](MLP(H, 8, 6), dim).double(), size)


def through(transforms, y):
    for step in transforms:
        y = step(y)
    return y


@every_family
def test_shapes_follow_the_context_and_particles_broadcast(family):
    q = build(family)(torch.randn(5, H).double())
    assert (q.batch_shape, q.event_shape) == ((5,), (D,))
    assert q.has_rsample and isinstance(q, TorchDistributionMixin)
    z = q.rsample((7,))
    assert z.shape == (7, 5, D) and q.log_prob(z).shape == (7, 5)
    wide = q.expand((7, 5))
    z = wide.rsample()
    assert z.shape == (7, 5, D) and wide.log_prob(z).shape == (7, 5)
    assert_close(wide.log_prob(z)[3], q.log_prob(z[3].clone()), 1e-8)


@every_family
def test_context_with_particles_gives_each_its_own_density(family):
    module, h = build(family), torch.randn(7, 5, H).double()
    z = module(h).rsample()
    log_q = module(h).log_prob(z)
    assert log_q.shape == (7, 5)
    assert_close(log_q[3, 2], module(h[3, 2]).log_prob(z[3, 2]), 1e-8)


@every_family
@pytest.mark.parametrize("dim", [1, D])
def test_one_value_is_scored_under_every_context(family, dim):
    module, h, z = build(family, dim), torch.randn(5, H).double(), torch.randn(3, 1, dim).double()
    assert_close(module(h).log_prob(z), module(h).log_prob(z.expand(3, 5, dim)), 1e-8)
    assert_close(module(h).log_prob(z[0, 0]), module(h).log_prob(z[0].expand(5, dim)), 1e-8)


@every_family
def test_context_changes_the_output(family):
    module, z = build(family), torch.randn(D).double()
    a, b = module(torch.randn(H).double()).log_prob(z), module(torch.randn(H).double()).log_prob(z)
    assert (a - b).abs() > 1e-3


@every_flow
def test_context_enters_the_steps_and_not_only_the_last_shift(family):
    module, y = build(family), torch.randn(D).double()
    a, b = (through(module(torch.randn(H).double()).transforms[:-1], y) for _ in range(2))
    assert (a - b).abs().max() > 1e-3


@every_family
@pytest.mark.parametrize("size", [0.0, 0.1])
def test_every_parameter_gets_a_gradient(family, size):
    """At the start as well: no layer is exactly 0."""
    module = build(family, size=size)
    q = module(torch.randn(9, H).double())
    z = q.rsample((5,))
    (q.log_prob(z) + (z**3).sum(-1)).sum().backward()
    for name, value in module.named_parameters():
        assert value.grad is not None and value.grad.abs().sum() > 0, name


@pytest.mark.slow
@every_family
@pytest.mark.parametrize("dim", [1, 2])
def test_density_integrates_to_one(family, dim):
    q = build(family, dim=dim, size=0.05)(torch.randn(H).double())
    draws = q.rsample((2000,))
    width = (60 if family == "student_t" else 9) * draws.std(0).max().item()
    z, log_cell = grid(width, 301 if dim == 2 else 1201, dim)
    tolerance = 1e-3 if "spline" in family else 1e-4  # a spline's slope has kinks: there the rule is of second order
    with torch.no_grad():
        assert_close(q.log_prob(draws.mean(0) + z).logsumexp(0) + log_cell, 0.0, tolerance)


@every_family
def test_density_of_own_samples_equals_that_of_a_clone(family):
    q = build(family)(torch.randn(5, H).double())
    z = q.rsample((6,))
    assert_close(q.log_prob(z), q.log_prob(z.clone()), 1e-8)


@every_family
def test_score_gradient_does_not_depend_on_who_drew_the_sample(family):
    """Nor on whether the features carry a gradient, as those of a frozen encoder do not."""
    module, h = build(family), torch.randn(5, H).double()
    module.net.requires_grad_(False)
    trained = [value for value in module.parameters() if value.requires_grad]
    q = module(h)
    z = q.sample()
    own = torch.autograd.grad(q.log_prob(z).sum(), trained, retain_graph=True)
    fixed = torch.autograd.grad(q.log_prob(z.clone()).sum(), trained)
    for a, b in zip(own, fixed, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


@every_flow
def test_steps_get_their_score_where_all_else_is_frozen(family):
    """The features carry no gradient then, and the draw none either."""
    module, h = build(family), torch.randn(5, H).double()
    module.net.requires_grad_(False)
    module.head.requires_grad_(False)
    q = module(h)
    z = q.sample()
    own = torch.autograd.grad(q.log_prob(z).sum(), list(module.steps.parameters()))
    fixed = torch.autograd.grad(q.log_prob(z.clone()).sum(), list(module.steps.parameters()))
    for a, b in zip(own, fixed, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


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
    module, other, h, z = build(family), build(family), torch.randn(5, H).double(), torch.randn(5, D).double()
    assert not torch.equal(module(h).log_prob(z), other(h).log_prob(z))
    other.load_state_dict(module.state_dict())
    assert torch.equal(module(h).log_prob(z), other(h).log_prob(z))


@every_family
@pytest.mark.parametrize("size", [-1e4, 1e4])
def test_extreme_contexts_stay_finite_in_single_precision(family, size):
    module = perturbed(FAMILIES[family](MLP(H, 8, 6), D))
    q = module(size * torch.randn(50, H))
    z = q.rsample()
    log_q = q.log_prob(z)
    assert z.isfinite().all() and log_q.abs().max() < 1e7
    z.mean().backward()
    for name, value in module.named_parameters():
        assert value.grad.isfinite().all(), name


@every_family
def test_start_is_near_a_plain_diagonal_gaussian(family):
    """At most 0.05 nats per dimension, with a location and a scale that are linear in the features."""
    module = FAMILIES[family](MLP(H, 32, 32), D).double()
    h = torch.randn(20, H).double()
    q, (loc, raw, *_) = module(h), module.head(module.net(h)).split(D, dim=-1)
    z = q.rsample((500,))
    log_r = dist.Normal(loc, positive(raw)).log_prob(z).sum(-1) - q.log_prob(z)
    divergence = (torch.expm1(log_r) - log_r).mean() / D
    assert 0 < divergence < 0.05


@every_flow
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_log_det_is_that_of_the_autograd_jacobian(family, dim):
    q = build(family, dim)(torch.randn(H).double())
    y = torch.randn(dim).double()
    values, total = [y], 0.0
    for step in q.transforms:
        values.append(step(values[-1]))
        total = total + step.log_abs_det_jacobian(values[-2], values[-1])
    sign, expected = torch.linalg.slogdet(jacobian(lambda y: through(q.transforms, y), y))
    assert sign == 1
    assert_close(total, expected, 1e-11)
    assert_close(q.log_prob(values[-1].clone()), q.base_dist.log_prob(y) - expected, 1e-8)


@every_flow
def test_inverse_undoes_forward_without_the_cache(family):
    q = build(family)(torch.randn(5, H).double())
    y = torch.randn(5, D).double()
    z = back = through(q.transforms, y)
    for step in reversed(q.transforms):
        back = step.with_cache(0).inv(back)
    assert back is not y
    assert_close(back, y, 1e-8)
    assert_close(through(q.transforms, back), z, 1e-8)


@every_flow
def test_own_samples_are_scored_without_another_pass(family):
    module, calls = build(family), []
    q = module(torch.randn(5, H).double())
    for step in module.steps:
        step.register_forward_hook(lambda *_: calls.append(1))
    q.log_prob(q.rsample((6,)))
    assert len(calls) == len(module.steps)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_a_coupling_keeps_one_part_and_two_couplings_change_all(dim):
    first, second = (perturbed(Coupling(dim, H, reverse).double(), 0.3) for reverse in (False, True))
    y, h = torch.randn(dim).double(), torch.randn(H).double()
    kept = dim // 2
    assert torch.equal(first(y, h)[0][:kept], y[:kept]) and (first(y, h)[0][kept:] != y[kept:]).all()
    assert torch.equal(second(y, h)[0][dim - kept :], y[dim - kept :])
    whole = jacobian(lambda y: second(first(y, h)[0], h)[0], y)
    assert (whole.diagonal() != 1).all() and (kept == 0 or (whole[:kept, kept:] != 0).any())


@pytest.mark.parametrize("reverse", [False, True])
def test_an_autoregressive_step_is_triangular(reverse):
    step = perturbed(Autoregressive(D, H, reverse).double(), 0.1)
    h = torch.randn(H).double()
    value = jacobian(lambda y: step(y, h)[0], torch.randn(D).double())
    value = value.flip(0, 1) if reverse else value
    assert torch.equal(value.triu(1), torch.zeros(D, D).double()) and (value.diagonal() > 0).all()
    assert (value.tril(-1)[torch.tril_indices(D, D, -1).unbind()] != 0).all()


@pytest.mark.parametrize("bins, bound", [(2, 1.0), (8, 4.0), (30, 3.0)])
def test_a_spline_is_a_smooth_increasing_bijection_of_its_interval(bins, bound):
    spline = RationalQuadratic(bins, bound)
    parameters = (2 * torch.randn(spline.size)).double()
    y = torch.linspace(-1.5 * bound, 1.5 * bound, 3001).double().requires_grad_()
    z, log_slope = spline(y, parameters.expand(3001, -1))
    slope = torch.autograd.grad(z.sum(), y)[0]
    assert_close(slope.log(), log_slope, 1e-9)
    assert (z.diff() > 0).all()
    outside = y.abs() > bound
    assert torch.equal(z[outside], y[outside]) and (log_slope[outside] == 0).all()
    assert_close(spline.inverse(z, parameters.expand(3001, -1)), y, 1e-8)
    ends = torch.tensor([-bound, bound]).double()
    assert_close(spline(ends, parameters.expand(2, -1))[0], ends, 1e-12)
    assert_close(spline(ends, parameters.expand(2, -1))[1], torch.zeros(2), 1e-9)


def test_a_spline_has_finite_gradients_at_its_knots_and_ends():
    spline = RationalQuadratic(4, 2.0)
    y = torch.tensor([-9.0, -2.0, -1.0, 0.0, 1.0, 2.0, 9.0]).requires_grad_()
    parameters = torch.zeros(7, spline.size).requires_grad_()
    z, log_slope = spline(y, parameters)
    assert_close(z, y, 1e-6)
    (z + log_slope + spline.inverse(z, parameters)).sum().backward()
    assert y.grad.isfinite().all() and parameters.grad.isfinite().all()


@pytest.mark.parametrize("raw", [-1e6, 1e6])
def test_an_affine_map_is_never_degenerate(raw):
    parameters = torch.tensor([raw, 1.0])
    z, log_slope = Affine()(torch.tensor(2.0), parameters)
    assert abs(log_slope) == 3 and Affine().inverse(z, parameters) == pytest.approx(2.0, abs=1e-5)


def test_low_rank_is_the_gaussian_it_says_and_correlates():
    module, h, z = build("low_rank"), torch.randn(5, H).double(), torch.randn(5, D).double()
    loc, raw, factor = module.head(module.net(h)).split([D, D, 2 * D], dim=-1)
    v = 10 * torch.tanh(factor / 10).view(5, D, 2)
    inner = torch.eye(D) + v @ v.mT
    cov = positive(raw).unsqueeze(-1) * inner * positive(raw).unsqueeze(-2)
    q, p = module(h), dist.Normal(torch.ones(D).double(), 0.7).to_event(1)
    assert_close(q.log_prob(z), MultivariateNormal(loc, cov).log_prob(z), 1e-9)
    assert_close(kl_divergence(q, p), kl_divergence(MultivariateNormal(loc, cov), p), 1e-9)
    assert cov.abs().min() > 1e-6


def test_student_t_is_the_density_it_says_and_has_a_variance():
    module, h, z = build("student_t"), torch.randn(5, H).double(), torch.randn(5, D).double()
    loc, raw_scale, raw_df = module.head(module.net(h)).chunk(3, -1)
    df, scale = 2 + 30 * positive(raw_df), positive(raw_scale)
    terms = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2) - 0.5 * (df * math.pi).log() - scale.log()
    expected = terms - (df + 1) / 2 * torch.log1p(((z - loc) / scale) ** 2 / df)
    assert_close(module(h).log_prob(z), expected.sum(-1), 1e-9)
    assert module(h).variance.isfinite().all() and (df > 2).all()


def mixture(phi: torch.Tensor) -> ReparametrisedMixture:
    """Three components in two dimensions: logits, locations, log-scales."""
    components = dist.Normal(phi[3:9].view(3, 2), phi[9:].view(3, 2).exp()).to_event(1)
    return ReparametrisedMixture(dist.Categorical(logits=phi[:3]), components)


def test_mixture_draws_carry_the_exact_gradient_of_every_expectation():
    """Sum over a grid of q(z) df/dz dz/dphi is d/dphi sum q(z) f(z), for all 15 parameters, the weights included."""
    phi = (0.4 * torch.randn(15)).double().requires_grad_()
    z, log_cell = grid(14.0, 601, 2)

    def f(z):
        return z[:, 0] ** 2 * z[:, 1] + torch.sin(z[:, 1] - z[:, 0])

    q, cell = mixture(phi), math.exp(log_cell)
    (expected,) = torch.autograd.grad((q.log_prob(z).exp() * f(z)).sum() * cell, phi)
    density, moved = mixture(phi).log_prob(z).exp().detach(), mixture(phi).implicit(z)
    assert torch.equal(moved, z)
    (found,) = torch.autograd.grad((density * f(moved)).sum() * cell, phi)
    assert_close(found, expected, 1e-8)
    assert expected[:3].abs().min() > 1e-4


def test_mixture_is_that_of_its_components_by_enumeration():
    module, h, z = build("mixture"), torch.randn(5, H).double(), torch.randn(5, D).double()
    q = module(h)
    normal, weights = q.component_distribution.base_dist, q.mixture_distribution.probs
    each = torch.stack([dist.Normal(normal.loc[:, k], normal.scale[:, k]).log_prob(z).sum(-1) for k in range(4)], -1)
    assert_close(q.log_prob(z), (weights * each.exp()).sum(-1).log(), 1e-9)


def test_mixture_of_far_components_keeps_a_finite_gradient_in_single_precision():
    logits = torch.zeros(2, requires_grad=True)
    components = dist.Normal(torch.tensor([[-30.0, 5.0], [2.0, -40.0]]), torch.ones(2, 2)).to_event(1)
    q = ReparametrisedMixture(dist.Categorical(logits=logits), components)
    z = q.rsample((5000,))
    (gradient,) = torch.autograd.grad(z.mean(), logits)
    assert z.isfinite().all() and gradient.isfinite().all()


@pytest.mark.parametrize("kappa", [0.05, 3.0, 40.0])
def test_von_mises_fisher_is_that_of_pyro_and_follows_its_density(kappa):
    loc = torch.nn.functional.normalize(torch.randn(3).double(), dim=-1)
    q, pyros = VonMisesFisher(loc, torch.tensor(kappa).double()), dist.VonMises3D(kappa * loc)
    z = q.rsample((40_000,))
    assert_close(z.norm(dim=-1), torch.ones(40_000), 1e-12)
    assert_close(q.log_prob(z), pyros.log_prob(z), 1e-8)
    assert ((z.mean(0) - q.mean).abs() < 5 * z.std(0) / 200).all()
    second = (z @ loc).square().mean()  # E w^2 = 1 - 2 A(kappa) / kappa
    assert abs(second - (1 - 2 * (1 / math.tanh(kappa) - 1 / kappa) / kappa)) < 5 * (z @ loc).square().std() / 200


def test_von_mises_fisher_draws_carry_the_exact_gradient():
    """Of E w = coth kappa - 1 / kappa by kappa, averaged over the noise of w on a fine grid."""
    kappa, step = torch.tensor(3.0).double(), 1e-6
    q = partial(VonMisesFisher, torch.tensor([0.0, 0.0, 1.0]).double())
    u = (torch.arange(20_000).double() + 0.5) / 20_000
    point = kappa.clone().requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda *_, **__: u)
        w = q(point).rsample((20_000,))[:, 2]
    assert_close(w.mean(), q(kappa).mean[2], 1e-6)
    slope = (q(kappa + step).mean[2] - q(kappa - step).mean[2]) / (2 * step)
    assert_close(torch.autograd.grad(w.mean(), point)[0], slope, 1e-6)


@pytest.mark.parametrize("size", [1.0, 1e4])
def test_directions_are_reparametrised_scored_and_expanded(size):
    module = perturbed(VonMisesFisherDirection(MLP(H, 8, 6)))
    q = module(size * torch.randn(5, H)).expand((7, 5))
    z = q.rsample()
    assert z.shape == (7, 5, 3) and q.log_prob(z).shape == (7, 5)
    (q.log_prob(z) + z.sum(-1)).sum().backward()
    assert all(value.grad.isfinite().all() and value.grad.abs().sum() > 0 for value in module.parameters())


@pytest.mark.parametrize("family", ["low_rank", *FLOWS])
def test_reparametrised_gradient_is_that_of_finite_differences(family):
    """With fixed noise, along a random direction; for a mixture see the exact test above."""
    module, h = build(family), torch.randn(5, H).double()
    start = [value.detach().clone() for value in module.parameters()]
    direction = [torch.randn_like(value) for value in start]

    def value(step: float) -> torch.Tensor:
        with torch.no_grad():
            for parameter, at, d in zip(module.parameters(), start, direction, strict=True):
                parameter.copy_(at + step * d)
        torch.manual_seed(1)
        q = module(h)
        z = q.rsample()
        return (q.log_prob(z) + z.square().sum(-1)).sum()

    gradient = torch.autograd.grad(value(0.0), list(module.parameters()))
    slope = sum((g * d).sum() for g, d in zip(gradient, direction, strict=True))
    assert_close(slope, (value(1e-6) - value(-1e-6)) / 2e-6, 1e-4 * max(1.0, slope.abs().item()))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda net: LowRankNormal(net, D, rank=0), "rank must be at least 1, got 0; for no correlations use Diagonal"),
        (lambda net: MixtureNormal(net, D, components=1), "components must be at least 2, got 1; for one use Diagonal"),
        (lambda net: DiagonalStudentT(net, D, start=2.0), "start must be above 2 and finite, got 2.0"),
        (
            lambda net: FlowNormal(net, D, Coupling, depth=0),
            "depth must be at least 1, got 0; for no flow",
        ),
        (lambda net: RationalQuadratic(bins=1), "bins must be between 2 and 500, got 1"),
        (lambda net: RationalQuadratic(bound=0.0), "bound must be positive and finite, got 0.0"),
        (lambda net: VonMisesFisherDirection(net, 1), "dim must be at least 2, got 1"),
        (
            lambda net: VonMisesFisher(torch.ones(1), torch.tensor(1.0)),
            r"loc must have shape .*, got \(1,\)",
        ),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(MLP(H, 8, 6))
