"""Planar, radial, Householder and Sylvester flows score any value, with every gradient, as they do their draws."""

from __future__ import annotations

import math
from functools import partial

import pyro
import pytest
import torch
from oracles import GOLDEN_1, X_1, assert_close
from oracles.forcing import gradient
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.functional import jacobian
from torch.func import functional_call

from dlvm.distributions import (
    FlowNormal,
    HouseholderBasis,
    HouseholderNormal,
    OrthogonalBasis,
    PermutedBasis,
    PlanarNormal,
    RadialNormal,
    SylvesterNormal,
)
from dlvm.distributions.flows.base import above_minus_one
from dlvm.distributions.flows.coupling import Coupling
from dlvm.distributions.flows.planar import Planar
from dlvm.distributions.flows.radial import Radial
from dlvm.distributions.flows.sylvester import Sylvester, SylvesterStep
from dlvm.distributions.flows.tanh_inverse import unbent, unbent_triangular
from dlvm.distributions.scale import limited, positive
from dlvm.guides import flows as guides
from dlvm.guides import latents
from dlvm.inference import IWAE, RWS, STL, SVI, DReG, Total, WakeSleep, evaluate
from dlvm.models import PPCA
from dlvm.nets import MLP

H, D = 3, 4
FAMILIES = {
    "planar": PlanarNormal,
    "radial": RadialNormal,
    "householder": HouseholderNormal,
    "sylvester": SylvesterNormal,
    "sylvester of low rank": partial(SylvesterNormal, basis=partial(OrthogonalBasis, rank=2)),
    "sylvester of reflections": partial(SylvesterNormal, basis=HouseholderBasis),
    "sylvester of permutations": partial(SylvesterNormal, basis=PermutedBasis),
}
every_family = pytest.mark.parametrize("family", FAMILIES)


def perturbed(module: nn.Module, size: float) -> nn.Module:
    with torch.no_grad():
        for value in module.parameters():
            value.add_(size * torch.randn_like(value))
    return module


def build(family: str, dim: int = D, depth: int = 2, size: float = 0.3) -> nn.Module:
    return perturbed(FAMILIES[family](MLP(H, 3), dim, depth=depth).double(), size)


def features(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, H).double()


def bent(kind: str, n: int, dtype: torch.dtype):
    """``n`` steps of every strength, from nearly flat to slopes of 4.5e-5 and of a hundred."""
    size = torch.logspace(-1, 1.5, n, dtype=dtype).unsqueeze(-1)
    u, w, b = (limited(size * torch.randn(n, width, dtype=dtype)) for width in (D, D, 1))
    if kind == "planar":
        return Planar(u, w, b)
    if kind == "radial":
        return Radial(b, positive(w[:, :1]), u)
    step = perturbed(SylvesterStep(H, D, 0, OrthogonalBasis).to(dtype), 1.0)
    return step(size / 10 * torch.randn(n, H, dtype=dtype))


@pytest.mark.parametrize("dtype, limit", [(torch.float64, 2e-15), (torch.float32, 1e-6)])
def test_scalar_root_is_exact_up_to_its_condition_for_any_slope(dtype, limit):
    """Error times slope, relative to the terms that are added up; x from 1e-12 to 1e5, m from -1 + e^-10 to 1e5."""
    m = torch.cat([torch.logspace(-4.34, 0, 60) - 1, torch.logspace(-6, 5, 80)]).to(dtype).unsqueeze(-1)
    x = torch.cat([torch.zeros(1), torch.logspace(-12, 5, 1000), torch.linspace(0.01, 20, 1000)]).to(dtype)
    x = torch.cat([-x, x])
    t = torch.tanh(x)
    d = x + m * t
    error = (unbent(d, m) - x).abs() * (1 + m * (1 - t.square()))
    assert (error <= limit * (x.abs() + m.abs() * t.abs())).all()


def test_scalar_root_has_exact_first_and_second_derivatives():
    d = (3 * torch.randn(30).double()).requires_grad_()
    m = above_minus_one(torch.linspace(-4, 20, 30).double()).requires_grad_()
    assert gradcheck(unbent, (d, m)) and gradgradcheck(unbent, (d, m))
    d, m = torch.randn(3, 4).double().requires_grad_(), torch.randn(4, 4).double().triu()
    m = (m - m.diag().diag() + above_minus_one(m.diag()).diag()).requires_grad_()

    def solved(d, m):
        return unbent_triangular(d, m.triu())

    assert gradcheck(solved, (d, m)) and gradgradcheck(solved, (d, m))


@pytest.mark.parametrize("kind", ["planar", "radial", "sylvester"])
@pytest.mark.parametrize("dtype, limit", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_an_inverse_is_that_of_a_step_of_any_strength(kind, dtype, limit):
    """What it finds is carried to z again; it is the y that z came from where the step is not near its limit."""
    step, y = bent(kind, 2000, dtype), 3 * torch.randn(2000, D, dtype=dtype)
    z, log_det = step.push(y)
    found = step.with_cache(0).inv(z)
    size = 1 + y.norm(dim=-1) + z.norm(dim=-1) + (z - y).norm(dim=-1)
    assert ((step.push(found)[0] - z).norm(dim=-1) <= limit * size * (100 if kind == "sylvester" else 1)).all()
    near = (log_det.abs() < 1) & (size < 30)
    assert near.sum() > 300 and ((found - y).norm(dim=-1) < limit * size)[near].all()


@every_family
def test_density_of_any_value_integrates_to_one_over_the_plane(family):
    q = build(family, dim=2, depth=3, size=0.2)(features())
    draws = q.sample((10_000,))
    centre, reach = draws.mean(0), 2 * (draws - draws.mean(0)).abs().amax(0)
    axis = torch.linspace(-1, 1, 201).double()
    density = q.log_prob(centre + reach * torch.cartesian_prod(axis, axis)).exp()
    assert_close(density.sum() * reach.prod() / 100**2, 1.0, 1e-4)


@every_family
def test_a_copy_of_a_draw_has_its_density_and_particles_broadcast(family):
    module, h = build(family, depth=4), features(7, 5)
    q = module(h)
    z = q.rsample((2,))
    assert_close(q.log_prob(z.clone()), q.log_prob(z), 1e-10)
    assert_close(module(h[3, 2]).log_prob(z[1, 3, 2]), q.log_prob(z)[1, 3, 2], 1e-10)
    single = module.float()(h.float())
    z = single.rsample()
    assert_close(single.log_prob(z.clone()), single.log_prob(z), 2e-4)


@every_family
def test_gradient_in_the_value_is_the_one_through_the_forward_map(family):
    """grad_z log q(z) = J^-T grad_y (log N(y) - log |det J(y)|), with J the Jacobian of the forward map at y."""
    q, y = build(family, size=0.5)(features()), torch.randn(D).double().requires_grad_()

    def forward(y):
        total = 0.0
        for step in q.transforms:
            y, log_det = step.push(y)
            total = total + log_det
        return y, total

    z, log_det = forward(y)
    (inner,) = torch.autograd.grad(q.base_dist.log_prob(y) - log_det, y)
    expected = torch.linalg.solve(jacobian(lambda y: forward(y)[0], y).T, inner)
    z = z.detach().requires_grad_()
    (found,) = torch.autograd.grad(q.log_prob(z), z)
    assert_close(found, expected, 1e-9)


@every_family
def test_gradients_in_value_context_and_parameters_are_finite_differences(family):
    module, h, z = build(family, dim=2), features(2), torch.randn(2, 2).double()
    names, values = zip(*module.named_parameters(), strict=True)

    def log_q(z, h, *values):
        return functional_call(module, dict(zip(names, values, strict=True)), (h,)).log_prob(z)

    inputs = [value.detach().clone().requires_grad_() for value in (z, h, *values)]
    assert gradcheck(log_q, inputs, fast_mode=True)
    assert family not in ("planar", "sylvester") or gradgradcheck(log_q, inputs, fast_mode=True)


@pytest.mark.parametrize("family", [*FAMILIES, "couplings"])
def test_a_score_does_not_depend_on_who_drew_the_value_or_scored_it_before(family):
    couplings = family == "couplings"
    module = perturbed(FlowNormal(MLP(H, 6), D, Coupling, depth=2).double(), 0.1) if couplings else build(family)
    q, parameters = module(features(5)), list(module.parameters())
    z = q.sample()  # its pass has no graph
    with torch.no_grad():
        assert_close(q.log_prob(z), q.log_prob(z.clone()), 1e-9)
        other = z.clone().requires_grad_()
        q.log_prob(other)
    found = [torch.autograd.grad(q.log_prob(v).sum(), parameters, retain_graph=True) for v in (z, z.clone(), other)]
    for a, b, c in zip(*found, strict=True):
        assert_close(a, b, 1e-9)
        assert_close(a, c, 1e-9)
    frozen = module.requires_grad_(False)(features(5))
    z = frozen.rsample().requires_grad_()  # a leaf only after it was drawn
    own, copy = (torch.autograd.grad(frozen.log_prob(v).sum(), v)[0] for v in (z, z.detach().clone().requires_grad_()))
    assert own.abs().min() > 0
    assert_close(own, copy, 1e-9)


def test_the_own_draw_is_not_inverted(monkeypatch):
    monkeypatch.setattr(Planar, "_inverse", lambda *_: pytest.fail("inverted"))
    module = build("planar")
    for q in (module(features(5)), module.requires_grad_(False)(features(5))):
        z = q.rsample()
        assert q.log_prob(z).isfinite().all()
        with torch.no_grad():
            assert q.log_prob(q.sample()).isfinite().all()


def test_a_radial_step_is_inverted_at_its_centre():
    b, alpha, c = (torch.tensor(value).double() for value in ([-3.0], [0.7], [1.0, -2.0]))
    step = Radial(b, alpha, c, cache_size=0)
    slope = above_minus_one(b)
    assert torch.equal(step.inv(c), c)
    assert_close(jacobian(step.inv, c), torch.eye(2).double() / (1 + slope), 1e-12)


def test_a_sylvester_step_of_no_direction_is_inverted():
    """Where S or R is 0 the step is a shift or nothing at all."""
    y, q, b = torch.randn(5, D).double(), torch.eye(D).double(), torch.randn(D).double()
    zero, r = torch.zeros(D, D).double(), torch.randn(D, D).double().triu()
    assert_close(Sylvester(q, r, zero, b, cache_size=0).inv(y), y - torch.tanh(b) @ r.T, 1e-12)
    assert torch.equal(Sylvester(q, zero, r, b, cache_size=0).inv(y), y)


GUIDES = {
    "planar": guides.Planar,
    "radial": guides.Radial,
    "sylvester": guides.Sylvester,
    "sylvester of low rank": partial(guides.Sylvester, basis=partial(OrthogonalBasis, rank=1)),
}
every_guide = pytest.mark.parametrize("name", GUIDES)
XS = torch.stack([X_1, -X_1, X_1 + 1])


def pair(name: str) -> tuple[PPCA, nn.Module]:
    model = PPCA(GOLDEN_1.weight, GOLDEN_1.mu, 1.5)
    return model, perturbed(GUIDES[name](latents(model, XS), MLP(4, 3), depth=2).double(), 0.2)


@pytest.mark.slow
@every_guide
def test_dreg_has_the_mean_of_the_total_derivative(name):
    """Paired by seed, K = 4: |t| < 4.5 for the worst coordinate, where STL's is far larger."""
    model, guide = pair(name)
    phi, found = list(guide.parameters()), {}
    for kind, estimator in (("total", Total()), ("dreg", DReG()), ("stl", STL())):
        rows = []
        for seed in range(24):
            pyro.set_rng_seed(seed)
            rows.append(gradient(IWAE(4, estimator).differentiable_loss(model, guide, XS.repeat(150, 1)), phi))
        found[kind] = torch.stack(rows)

    def worst(kind):
        difference = found[kind] - found["total"]
        moving = difference.std(0) > 1e-9
        return (difference.mean(0) / difference.std(0))[moving].abs().max().item() * math.sqrt(24)

    assert worst("dreg") < 4.5 and worst("stl") > 6


@every_guide
@pytest.mark.parametrize("objective", [WakeSleep(), RWS(3)], ids=repr)
def test_wake_and_sleep_phases_move_every_parameter(objective, name):
    model, guide = pair(name)
    before = [value.detach().clone() for value in guide.parameters()]
    assert math.isfinite(SVI(model, guide, partial(torch.optim.Adam, lr=1e-3), objective, engine="eager").step(XS))
    assert all((a != b).any() and b.isfinite().all() for a, b in zip(before, guide.parameters(), strict=True))


@every_guide
def test_evaluate_finds_log_px(name):
    model, guide = pair(name)
    found = evaluate(model, guide, XS, num_particles=2000)
    exact = model.log_px(XS).mean().item()
    assert abs(found.log_px - exact) < 5 * found.log_px_se + 1e-3 and found.elbo < exact


@pytest.mark.slow
@every_guide
@pytest.mark.parametrize("objective", [IWAE(3, DReG()), RWS(3)], ids=repr)
def test_captured_steps_with_inverses_are_the_eager_ones_bit_for_bit(objective, name):
    left = []
    for engine in ("eager", "captured"):
        pyro.set_rng_seed(3)
        model, guide = pair(name)
        svi = SVI(model, guide, partial(torch.optim.Adam, lr=1e-2, foreach=False), objective, engine=engine)
        for _ in range(5):
            svi.step(XS)
        assert svi.running == engine
        left.append(guide.state_dict())
    assert all(torch.equal(left[0][key], left[1][key]) for key in left[0])
