"""Flows over data: every piece against autograd, its inverse, any leading dimensions; densities against draws."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import assert_close
from torch import nn
from torch.autograd.functional import jacobian

from dlvm.distributions import (
    ActNorm,
    Additive,
    ChannelCoupling,
    CheckerboardCoupling,
    Composition,
    Coupling,
    FlowDensity,
    InvertibleConv,
    Logit,
    MultiScale,
    RationalQuadratic,
    Reorder,
    Squeeze,
    Standardise,
    image_flow,
    vector_flow,
)
from dlvm.models import NICE, VAE, RealNVP

pytestmark = pytest.mark.usefixtures("float64")

H = 3
SMALL = {"width": 4, "blocks": 1}
PIECES = {  # what makes it, the shape of a datum, the width of its context
    "additive": (lambda: Coupling(5, 0, bijection=Additive()), (5,), 0),
    "coupling without a context": (lambda: Coupling(2, 0, reverse=True, hidden=()), (2,), 0),
    "actnorm": (lambda: ActNorm(3), (3,), 0),
    "actnorm of maps": (lambda: ActNorm(3, behind=2), (3, 2, 2), 0),
    "standardise": (lambda: Standardise(torch.randn(3), torch.rand(3) + 0.5), (3,), 0),
    "reorder": (lambda: Reorder(5), (5,), 0),
    "squeeze": (Squeeze, (2, 4, 2), 0),
    "mixing": (lambda: InvertibleConv(3), (3, 2, 2), 0),
    "channels": (lambda: ChannelCoupling(3, H, **SMALL), (3, 3, 2), H),
    "channels in reverse": (lambda: ChannelCoupling(4, 0, True, RationalQuadratic(4), **SMALL), (4, 1, 2), 0),
    "board": (lambda: CheckerboardCoupling((1, 3, 4), H, **SMALL), (1, 3, 4), H),
    "board in reverse": (lambda: CheckerboardCoupling((2, 2, 3), 0, True, Additive(), **SMALL), (2, 2, 3), 0),
    "composition": (lambda: vector_flow(3, 3, (4,), H, actnorm=True), (3,), H),
    "splines": (lambda: vector_flow(3, 2, (), bijection=RationalQuadratic(4)), (3,), 0),
    "scales": (lambda: image_flow((1, 4, 4), 3, 1, 3, 1, actnorm=True, mixing=True), (16,), 0),
    "scales of colours": (lambda: image_flow((2, 2, 6), 2, 1, 3, 0, H), (24,), H),
    "last scale of odd sides": (lambda: image_flow((1, 6, 2), 2, 1, 3, 0), (12,), 0),
}  # fmt: skip


def perturbed(module: nn.Module, size: float = 0.2) -> nn.Module:
    with torch.no_grad():
        for value in module.parameters():
            value.add_(size * torch.randn_like(value))
    return module


@pytest.fixture(params=PIECES)
def piece(request):
    make, shape, context = PIECES[request.param]
    made = perturbed(make())
    return made, shape, (lambda *batch: (torch.randn(*batch, context),) if context else ())


def test_the_log_determinant_is_that_of_the_jacobian_and_the_inverse_comes_back(piece):
    flow, shape, context = piece
    y, h = torch.randn(shape), context()
    z, log_det = flow(y, *h)
    found = jacobian(lambda y: flow(y, *h)[0].flatten(), y).reshape(y.numel(), y.numel())
    assert log_det.shape == ()
    assert_close(log_det, torch.linalg.slogdet(found)[1], 1e-9)
    assert_close(flow.inverse(z, *h), y, 1e-9)
    other = torch.randn(z.shape)
    assert_close(flow(flow.inverse(other, *h), *h)[0], other, 1e-9)


def test_leading_dimensions_are_left_alone_and_contexts_broadcast(piece):
    flow, shape, context = piece
    y, h = torch.randn(4, *shape), context(2, 1)
    z, log_det = flow(y.expand(2, 4, *shape), *h)
    for i in range(2):
        for j in range(4):
            one, alone = flow(y[j], *(value[i, 0] for value in h))
            assert_close(z[i, j], one, 1e-10)
            assert_close(log_det[i, j], alone, 1e-10)
    again, log_det_again = flow(y, *h)
    assert_close(again.expand_as(z), z, 1e-10)
    assert_close(log_det_again.expand_as(log_det), log_det, 1e-10)
    assert_close(flow.inverse(z, *h), y.expand(2, 4, *shape), 1e-9)
    assert flow(y[:0], *(value[0] for value in h))[0].shape == (0, *z.shape[2:])


def test_every_parameter_gets_a_gradient(piece):
    flow, shape, context = piece
    z, log_det = flow(torch.randn(9, *shape).requires_grad_(), *context(9))
    (z.square().sum() - log_det.sum()).backward()
    for name, value in flow.named_parameters():
        assert value.grad is not None and (value.grad != 0).any(), name


def test_logit_takes_the_unit_cube_to_all_numbers():
    flow, y = Logit(0.1), torch.rand(3)
    z, log_det = flow(y)
    assert_close(log_det, jacobian(lambda y: flow(y)[0], y).diagonal().log().sum(), 1e-10)
    assert_close(flow.inverse(z), y, 1e-12)
    ends = flow(torch.tensor([0.0, 1.0]))[0]
    assert_close(ends, torch.tensor([-1.0, 1.0]) * math.log(9), 1e-12)
    edge = flow.inverse(torch.full((2, 1), 1e3) * torch.tensor([[1.0], [-1.0]]))
    assert flow.domain.check(edge).all() and not flow.domain.check(torch.tensor([-0.13]))


def test_actnorm_starts_from_data_and_keeps_a_constant():
    norm, y = ActNorm(3, behind=2), torch.randn(4, 5, 3, 2, 6) * 4 + 7
    y[..., 1, :, :] = 2.5
    z = norm.initialise(y)
    columns = z.movedim(-3, -1).flatten(0, -2)
    assert_close(columns.mean(0), torch.zeros(3), 1e-9)
    assert_close(columns.var(0, correction=0), torch.tensor([1.0, 0.0, 1.0]), 1e-9)
    assert_close(norm(y)[0], z, 1e-12)
    with pytest.raises(ValueError, match="two data or more"):
        ActNorm(3).initialise(torch.zeros(1, 3))


def test_every_actnorm_of_a_flow_sees_what_reaches_it():
    model = RealNVP(64, Composition(Logit(), image_flow((1, 8, 8), 2, 1, 4, 0, actnorm=True, mixing=True)))
    x = torch.rand(300, 64)
    model.initialise(x)
    seen, norms = [], [m for m in model.modules() if isinstance(m, ActNorm)]
    for norm in norms:
        norm.register_forward_hook(lambda module, _, out: seen.append(out[0]))
    model.likelihood().log_prob(x)
    assert len(seen) == len(norms) == 1 + 1 + 2
    for z in seen:
        assert_close(z.mean((0, 2, 3)), torch.zeros(z.shape[1]), 1e-9)
        assert_close(z.var((0, 2, 3), correction=0), torch.ones(z.shape[1]), 1e-9)


def test_a_squeeze_folds_each_square_of_places():
    y = torch.arange(16.0).reshape(1, 4, 4)
    z, _ = Squeeze()(y)
    assert z.shape == (4, 2, 2)
    assert z[:, 0, 0].tolist() == [0, 1, 4, 5] and z[:, 1, 1].tolist() == [10, 11, 14, 15]


def test_mixing_starts_as_a_rotation():
    flow = InvertibleConv(5)
    lower, upper = flow.factors()
    weight = flow.permutation @ lower @ upper
    assert_close(weight @ weight.T, torch.eye(5), 1e-10)
    assert_close(flow(torch.randn(5, 1, 3))[1], 0.0, 1e-10)


def test_white_places_decide_about_black_ones():
    flow = perturbed(CheckerboardCoupling((1, 4, 4), **SMALL))
    y = torch.randn(1, 4, 4)
    white = (torch.arange(4)[:, None] + torch.arange(4)) % 2 == 0
    found = jacobian(lambda y: flow(y)[0], y).reshape(16, 16)
    black = ~white.flatten()
    assert_close(found[white.flatten()], torch.eye(16)[white.flatten()], 1e-12)
    assert_close(found[black][:, black], torch.diag(found[black][:, black].diagonal()), 1e-12)
    assert (found[black][:, ~black] != 0).any()


def test_noise_of_all_scales_is_all_of_it_and_the_first_is_local():
    """What is done after the first scale hears its own neighbourhood alone; nothing is lost or doubled."""
    flow = MultiScale((1, 4, 4), Squeeze(), InvertibleConv(2))
    y = torch.arange(16.0)
    z, _ = flow(y)
    assert z[:8].sort()[0].tolist() == [4, 5, 6, 7, 12, 13, 14, 15]  # the lower places of each square
    assert_close(z[8:].square().sum(), y.square().sum() - z[:8].square().sum(), 1e-9)


MODELS = {
    "nice": lambda: NICE(2, (8,), noise="logistic"),
    "real nvp": lambda: RealNVP(2, vector_flow(2, 4, (8,), actnorm=True)),
    "spline": lambda: RealNVP(2, vector_flow(2, 4, (8,), bijection=RationalQuadratic(8)), noise="logistic"),
    "image": lambda: RealNVP(2, image_flow((1, 1, 2), 1, 1, 3, 0)),
}


@pytest.mark.parametrize(
    "name", ["nice", "real nvp", *(pytest.param(n, marks=pytest.mark.slow) for n in ("spline", "image"))]
)
def test_a_density_integrates_to_one_over_the_plane(name):
    model = perturbed(MODELS[name](), 0.15)
    draws = model(n=20_000).detach()
    centre, reach = draws.mean(0), 1.5 * (draws - draws.mean(0)).abs().amax(0)
    axis = torch.linspace(-1, 1, 301)
    with torch.no_grad():
        density = model.likelihood().log_prob(centre + reach * torch.cartesian_prod(axis, axis)).exp()
    assert_close(density.sum() * reach.prod() / 150**2, 1.0, 3e-3)


@pytest.mark.parametrize("name", ["nice", "real nvp"])
def test_the_share_of_draws_in_a_cell_is_the_integral_of_the_density(name):
    model, n = perturbed(MODELS[name](), 0.15), 40_000
    draws = model(n=n).detach()
    low, high = draws.quantile(0.1, 0), draws.quantile(0.9, 0)
    cell = ((draws - low) / (high - low) * 4).floor()
    grid = (torch.arange(80) + 0.5) / 20
    points = low + (high - low) / 4 * torch.cartesian_prod(grid, grid)
    with torch.no_grad():
        density = model.likelihood().log_prob(points).exp() * ((high - low) / 80).prod()
    mass = density.reshape(4, 20, 4, 20).sum((1, 3))
    share = torch.stack(
        [torch.stack([((cell == torch.tensor([i, j])).all(1)).double().mean() for j in range(4)]) for i in range(4)]
    )
    assert ((share - mass).abs() < 4.5 * (mass * (1 - mass) / n).sqrt() + 1e-4).all()


def test_a_likelihood_by_a_flow_is_exact_for_each_context():
    flow = vector_flow(2, 3, (6,), context=4)
    likelihood = perturbed(FlowDensity(flow, 2, net=nn.Linear(3, 4)), 0.3)
    z = torch.randn(5, 3)
    p = likelihood(z)
    assert (p.batch_shape, p.event_shape) == ((5,), (2,))
    axis = torch.linspace(-12, 12, 241)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        mass = p.expand((len(grid), 5)).log_prob(grid[:, None]).exp().sum(0) * 0.1**2
    assert_close(mass, torch.ones(5), 1e-3)
    model = VAE(3, likelihood)
    assert model(n=7).shape == (7, 2)
    assert not torch.allclose(p.log_prob(grid[:1]), p.log_prob(grid[:1])[0])


def test_a_draw_passes_gradients_to_the_parameters():
    likelihood = FlowDensity(vector_flow(2, 2, (3,), context=4), 2, net=nn.Linear(3, 4))
    likelihood(torch.randn(5, 3)).rsample().square().sum().backward()
    assert (likelihood.net.weight.grad != 0).any()


REFUSED = {
    "an odd side": (lambda: Squeeze()(torch.zeros(2, 1, 7, 8)), "sides 7 and 8, which must be even.*pad the images"),
    "too many scales": (lambda: image_flow((1, 28, 28), scales=4), "3 times; use at most 3 scales, or pad .* of 8"),
    "an odd image": (lambda: image_flow((3, 7, 8)), "sides 7 and 8, .* use 1 scale, or pad .* of 2"),
    "no shape": (lambda: image_flow((28, 28)), r"shape must be \(channels, height, width\), got \(28, 28\)"),
    "another width": (lambda: image_flow((1, 4, 4))(torch.zeros(5, 15)), r"shape \(\*batch, 16\), got \(5, 15\)"),
    "other channels": (lambda: ChannelCoupling(4)(torch.zeros(3, 4, 4)), r"\(\*batch, 4, height, width\), got"),
    "other maps": (lambda: CheckerboardCoupling((1, 4, 4))(torch.zeros(1, 4, 3)), r"\(\*batch, 1, 4, 4\), got"),
    "one channel": (lambda: ChannelCoupling(1), "channels must be at least 2, got 1; use a CheckerboardCoupling"),
    "one place": (lambda: CheckerboardCoupling((3, 1, 1)), "two places or more"),
    "one number": (lambda: Coupling(1, 0), "dim must be at least 2 where there is no context, got 1"),
    "a missing context": (lambda: Coupling(3, 2)(torch.zeros(5, 3)), "h must be given exactly where"),
    "a context too many": (lambda: ChannelCoupling(2)(torch.zeros(2, 4, 4), torch.zeros(3)), "h must be given exactly"),
    "other noise": (lambda: RealNVP(2, noise="uniform"), "noise must be one of normal, logistic, got 'uniform'"),
    "a margin of a half": (lambda: Logit(0.5), "margin must be at least 0 and below 0.5, got 0.5"),
    "a scale of 0": (lambda: Standardise(torch.zeros(2), torch.zeros(2)), "scale must be positive in all columns"),
    "another precision": (lambda: RealNVP(2).likelihood().log_prob(torch.zeros(2).float()), "inputs are torch.float32"),
    "no map": (lambda: Composition(), "maps must be one or more"),
    "no scale": (lambda: MultiScale((1, 4, 4)), "scales must be one or more"),
    "data of another width": (lambda: NICE(4)(torch.zeros(5, 3)), "x has events of shape"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_with_the_remedy(case):
    call, words = REFUSED[case]
    with pytest.raises(ValueError, match=words):
        call()


def test_a_map_without_an_inverse_is_refused():
    for make in (Composition, lambda net: FlowDensity(net, 3), lambda net: RealNVP(3, net)):
        with pytest.raises(TypeError, match=r"must have an inverse\(z, \*context\), got Linear"):
            make(nn.Linear(3, 3))
