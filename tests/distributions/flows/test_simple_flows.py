"""Planar, radial, Householder and Sylvester flows: exact densities, limits of their parameters, use in bounds."""

from __future__ import annotations

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import ENERGIES, GOLDEN_1, GOLDEN_2, LOG_Z_BOX, X_1, X_2, Gaussian, assert_close, inverse
from torch import nn
from torch.autograd.functional import jacobian
from torch.distributions import MultivariateNormal

from dlvm.distributions import (
    DiagonalNormal,
    Flow,
    HouseholderBasis,
    HouseholderNormal,
    OrthogonalBasis,
    PermutedBasis,
    PlanarNormal,
    RadialNormal,
    SylvesterNormal,
    positive,
)
from dlvm.distributions.flows.base import OneWay, above_minus_one
from dlvm.distributions.flows.planar import Planar
from dlvm.distributions.flows.radial import Radial
from dlvm.distributions.flows.sylvester import Sylvester
from dlvm.guides import flows as guides
from dlvm.guides import latents
from dlvm.inference import ELBO, IWAE, STL, SVI, DReG, ScoreFunction
from dlvm.models import PPCA
from dlvm.nets import MLP

H, D = 3, 4
TWO = partial(OrthogonalBasis, rank=1)
FAMILIES = {
    "planar": PlanarNormal,
    "radial": RadialNormal,
    "householder": HouseholderNormal,
    "sylvester": SylvesterNormal,
    "sylvester of low rank": partial(SylvesterNormal, basis=TWO),
    "sylvester of reflections": partial(SylvesterNormal, basis=HouseholderBasis),
    "sylvester of permutations": partial(SylvesterNormal, basis=PermutedBasis),
}
every_family = pytest.mark.parametrize("family", FAMILIES)


def perturbed(module: nn.Module, size: float) -> nn.Module:
    with torch.no_grad():
        for value in module.parameters():
            value.add_(size * torch.randn_like(value))
    return module


def build(family: str, dim: int = D, depth: int = 3, size: float = 0.3) -> nn.Module:
    return perturbed(FAMILIES[family](MLP(H, 8, 6), dim, depth=depth).double(), size)


def features(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, H).double()


def through(q, y: torch.Tensor) -> torch.Tensor:
    for step in q.transforms:
        y = step(y)
    return y


@every_family
@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("dim", [1, D])
def test_log_det_is_that_of_the_autograd_jacobian(family, depth, dim):
    q, y = build(family, dim, depth, size=0.5)(features()), torch.randn(dim).double()
    values, total = [y], 0.0
    for step in q.transforms:
        values.append(step(values[-1]))
        total = total + step.log_abs_det_jacobian(values[-2], values[-1])
        assert_close(step.with_cache(0).log_abs_det_jacobian(values[-2], values[-1]), step._scored[1], 1e-14)
    log_q = q.log_prob(values[-1])
    sign, expected = torch.linalg.slogdet(jacobian(lambda y: through(q, y), y))
    assert sign == (-1) ** (depth * (family == "householder"))
    assert_close(total, expected, 1e-9)
    assert_close(log_q, q.base_dist.log_prob(y) - expected, 1e-9)


@every_family
def test_density_integrates_to_one_over_the_plane(family):
    """Cells of a grid are mapped corner by corner: density at the mapped centre times area of the mapped quadrangle."""
    q = build(family, dim=2, size=0.3)(features())
    axis = torch.linspace(-8, 8, 401).double()
    loc, scale = q.base_dist.base_dist.loc, q.base_dist.base_dist.scale
    corners = through(q, loc + scale * torch.cartesian_prod(axis, axis)).unflatten(0, (401, 401))
    one, two = corners[1:, 1:] - corners[:-1, :-1], corners[:-1, 1:] - corners[1:, :-1]
    area = 0.5 * (one[..., 0] * two[..., 1] - one[..., 1] * two[..., 0]).flatten()
    middle = (axis[1:] + axis[:-1]) / 2
    density = q.log_prob(through(q, loc + scale * torch.cartesian_prod(middle, middle))).exp()
    assert_close((density * area).sum(), -1.0 if family == "householder" else 1.0, 1e-3)


@every_family
def test_a_flow_is_no_gaussian_but_the_householder_flow_is(family):
    """KL from q to the Gaussian of the same moments, by own draws."""
    with torch.no_grad():
        q = build(family, depth=8, size=0.5)(features())
        z = q.rsample((20_000,))
        log_ratio = q.log_prob(z) - MultivariateNormal(z.mean(0), z.T.cov()).log_prob(z)
    assert (log_ratio.mean() > 0.01) == (family != "householder")


@every_family
def test_shapes_follow_the_context_and_particles_broadcast(family):
    q = build(family)(features(5))
    assert (q.batch_shape, q.event_shape, q.has_rsample) == ((5,), (D,), True)
    z = q.rsample((7,))
    assert z.shape == (7, 5, D) and q.log_prob(z).shape == (7, 5)
    wide = q.expand((7, 5))
    z = wide.rsample()
    assert z.shape == (7, 5, D) and wide.log_prob(z).shape == (7, 5)


@every_family
def test_context_with_particles_gives_each_its_own_density(family):
    module, h = build(family), features(7, 5)
    q = module(h)
    z = q.rsample()
    alone, y = module(h[3, 2]), q.transforms[0]._cached_x_y[0][3, 2]
    own = through(alone, y)
    assert_close(own, z[3, 2], 1e-10)
    assert_close(alone.log_prob(own), q.log_prob(z)[3, 2], 1e-10)


@every_family
def test_context_changes_every_step(family):
    y = torch.randn(D).double()
    a, b = (build_once(family)(h).transforms for h in features(2))
    for one, other in zip(a, b, strict=True):
        assert (one(y) - other(y)).abs().max() > 1e-3


def build_once(family: str) -> nn.Module:
    pyro.set_rng_seed(1)
    return build(family)


@every_family
@pytest.mark.parametrize("size", [0.0, 0.3])
def test_every_parameter_gets_a_gradient(family, size):
    module = build(family, depth=4, size=size)
    q = module(features(9))
    z = q.rsample()
    (q.log_prob(z) + (z**3).sum(-1)).sum().backward()
    for name, value in module.named_parameters():
        assert value.grad is not None and value.grad.abs().sum() > 0, name


@every_family
@pytest.mark.parametrize("depth", [2, 16])
def test_start_is_near_the_identity_at_any_depth(family, depth):
    module = FAMILIES[family](MLP(H, 32, 32), D, depth=depth).double()
    y = torch.randn(20, D).double()
    q = module(features(20))
    z = through(q, y)
    assert (z - y).square().mean().sqrt() < 0.01 * depth
    assert sum(step._scored[1] for step in q.transforms).abs().max() < 0.05 * depth


@every_family
def test_state_dict_round_trip_is_exact(family):
    module, other, h, y = build(family), build(family), features(5), torch.randn(5, D).double()
    assert not torch.equal(through(module(h), y), through(other(h), y))
    other.load_state_dict(module.state_dict())
    assert torch.equal(through(module(h), y), through(other(h), y))


@every_family
@pytest.mark.parametrize("size", [-1e4, 1e4])
def test_extreme_contexts_stay_finite_in_single_precision(family, size):
    module = perturbed(FAMILIES[family](MLP(H, 8, 6), D), 0.1)
    q = module(size * torch.randn(50, H))
    z = q.rsample()
    log_q = q.log_prob(z)
    assert z.isfinite().all() and log_q.isfinite().all() and log_q.abs().max() < 1e7
    (z.mean() + log_q.mean()).backward()
    for name, value in module.named_parameters():
        assert value.grad.isfinite().all(), name


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_householder_is_a_gaussian_with_an_orthogonal_map(depth):
    module, h = build("householder", depth=depth), features()
    q = module(h)
    matrix = through(q, torch.eye(D).double()).T
    assert_close(matrix.T @ matrix, torch.eye(D).double(), 1e-12)
    assert all(torch.equal(step._scored[1], torch.zeros(D).double()) for step in q.transforms)
    base, z = q.base_dist.base_dist, torch.randn(6, D).double()
    plain = MultivariateNormal(matrix @ base.loc, matrix @ base.scale.square().diag() @ matrix.T)
    assert_close(q.log_prob(z), plain.log_prob(z), 1e-9)


@pytest.mark.parametrize("basis", [OrthogonalBasis, TWO, HouseholderBasis, PermutedBasis])
@pytest.mark.parametrize("size", [0.1, 1e4])
def test_bases_are_orthonormal_for_any_context(basis, size):
    for t in (0, 1):
        module = perturbed(basis(H, D, t), 1.0).double()
        q = module(size * features(500))
        assert q.shape[-2:] == (D, module.rank)
        assert_close(q.mT @ q, torch.eye(module.rank).double().expand(*q.shape[:-2], -1, -1), 1e-12)
    assert not torch.equal(q, basis(H, D, 0).double()(features(500)))


def test_an_orthogonal_basis_moves_continuously():
    """A column that passes through a plane does not turn round, as factors of raw QR decompositions do."""
    module = perturbed(OrthogonalBasis(H, D, rank=2), 1.0).double()
    a, b = features(), features()
    path = torch.lerp(a, b, torch.linspace(0, 1, 20_001).double().unsqueeze(-1))
    assert module(path).diff(dim=0).norm(dim=(-2, -1)).max() < 0.05


@pytest.mark.parametrize("scale", [0.1, 10.0, 1e3])
def test_planar_and_radial_steps_keep_their_side_of_the_limit(scale):
    u, w = (scale * torch.randn(5000, D).double() for _ in range(2))
    b = scale * torch.randn(5000, 1).double()
    planar, radial = Planar(u, w, b), Radial(b, positive(b), w)
    assert ((planar.v * w).sum(-1) > -1).all() and ((u * w).sum(-1) < -1).any() == (scale > 1)
    assert_close((planar.v * w).sum(-1, keepdim=True), planar.slope, 1e-6)
    assert (radial.beta > -radial.alpha).all()
    assert torch.equal(Planar(torch.zeros_like(u), w, b)(u), u)


@pytest.mark.parametrize("basis", [OrthogonalBasis, TWO, HouseholderBasis, PermutedBasis])
def test_sylvester_diagonals_keep_their_side_of_the_limit(basis):
    module = perturbed(SylvesterNormal(MLP(H), D, depth=2, basis=basis).double(), 1.0)
    for step in module(1e3 * features(200)).transforms:
        _, r, s, _ = step.parameters
        product = r.diagonal(dim1=-2, dim2=-1) * s.diagonal(dim1=-2, dim2=-1)
        assert (product > -1).all() and (product < -0.9).any()
        assert torch.equal(r, r.triu()) and torch.equal(s, s.triu())


def test_a_planar_step_is_the_sylvester_step_of_rank_one():
    """Q = w / |w|, S = |w|, R = v'w / |w| for u along w."""
    w, y = torch.randn(D).double(), torch.randn(5, D).double()
    planar = Planar(0.7 * w, w, torch.full((1,), 0.2).double())
    size = w.norm().reshape(1, 1)
    sylvester = Sylvester((w / size[0]).unsqueeze(-1), planar.slope.reshape(1, 1) / size, size, planar.b)
    assert_close(sylvester(y), planar(y), 1e-12)
    assert_close(sylvester._scored[1], planar._scored[1], 1e-12)


def test_correction_is_zero_at_zero_and_increases_from_minus_one():
    raw = torch.linspace(-9, 50, 1001).double()
    assert_close(above_minus_one(torch.zeros(1).double()), torch.zeros(1).double(), 1e-15)
    assert (above_minus_one(raw).diff() > 0).all()
    assert -1 < above_minus_one(torch.tensor(-1e9)) < -0.9999


@every_family
def test_bad_depth_is_refused(family):
    with pytest.raises(ValueError, match="depth must be at least 1, got 0; for no flow use DiagonalNormal"):
        FAMILIES[family](MLP(H, 8, 6), D, depth=0)


def test_bad_settings_of_a_basis_are_refused():
    with pytest.raises(ValueError, match="rank must be within 1 and dim=4, got 5; leave it out for a square matrix"):
        SylvesterNormal(MLP(H), D, basis=partial(OrthogonalBasis, rank=5))
    with pytest.raises(ValueError, match="reflections must be at least 1, got 0; for none use PermutedBasis"):
        SylvesterNormal(MLP(H), D, basis=partial(HouseholderBasis, reflections=0))


def test_a_new_family_is_one_step():
    """A shift by a linear function of the features, written as a user would."""

    class Shift(OneWay):
        def push(self, y):
            return y + self.parameters[0], y.new_zeros(y.shape[:-1])

    class ShiftStep(nn.Linear):
        def forward(self, h):
            return Shift(super().forward(h))

    module = Flow(MLP(H, 8, 6), D, 2, lambda width, dim, t: ShiftStep(width, dim)).double()
    q = module(features(5))
    y = torch.randn(5, D).double()
    assert_close(q.log_prob(through(q, y)), q.base_dist.log_prob(y), 1e-12)
    with pytest.raises(NotImplementedError, match=r"Shift has no inverse: give it _inverse\(z\) -> y, or score only"):
        q.log_prob(y)


GUIDES = {
    "planar": guides.Planar,
    "radial": guides.Radial,
    "householder": guides.Householder,
    "sylvester": guides.Sylvester,
    "sylvester of reflections": partial(guides.Sylvester, basis=HouseholderBasis),
    "sylvester of permutations": partial(guides.Sylvester, basis=PermutedBasis),
}
every_guide = pytest.mark.parametrize("name", GUIDES)
XS = torch.stack([X_1, -X_1, X_1 + 1])


def pair(name: str) -> tuple[PPCA, nn.Module]:
    model = PPCA(GOLDEN_1.weight, GOLDEN_1.mu, GOLDEN_1.s2.sqrt())
    return model, GUIDES[name](latents(model, XS), MLP(4, 8), depth=2).double()


@every_guide
@pytest.mark.parametrize("objective", [ELBO(2), pytest.param(IWAE(3), marks=pytest.mark.slow)], ids=repr)
def test_bounds_are_bounds_and_train_every_parameter(objective, name):
    model, guide = pair(name)
    losses = torch.tensor([objective.loss(model, guide, XS.repeat(20, 1)) / 20 for _ in range(15)])
    assert -losses.mean() < GOLDEN_1.log_px(XS).sum() + 5 * losses.std() / math.sqrt(15)
    objective.differentiable_loss(model, guide, XS).backward()
    for parameter, value in guide.named_parameters():
        assert value.grad is not None and value.grad.abs().sum() > 0, parameter


@every_guide
@pytest.mark.parametrize("estimator", [DReG(), STL(), ScoreFunction(everywhere=True)], ids=repr)
def test_estimators_that_look_twice_reach_every_parameter(estimator, name):
    model, guide = pair(name)
    IWAE(3, estimator).differentiable_loss(model, guide, XS).backward()
    for parameter, value in guide.named_parameters():
        assert value.grad is not None and value.grad.isfinite().all() and value.grad.abs().sum() > 0, parameter


@every_guide
def test_analytic_kl_finds_the_dependencies_of_two_layers(name):
    """Each layer's density is that of its own draw; flows have no analytic KL, so that the bound is the same."""

    def model(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(z2, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z1.repeat(1, 2), 1.0).to_event(1), obs=x)

    guide = GUIDES[name](latents(model, XS), MLP(4, 8), depth=2).double()
    bounds = []
    for objective in (ELBO(), ELBO(analytic_kl=True)):
        pyro.set_rng_seed(1)
        bounds.append(objective.loss(model, guide, XS))
    assert bounds[0] == pytest.approx(bounds[1], abs=1e-12)


@pytest.mark.slow
@every_guide
def test_captured_steps_are_the_eager_ones_bit_for_bit(name):
    left = []
    for engine in ("eager", "captured"):
        pyro.set_rng_seed(3)
        model, guide = pair(name)
        svi = SVI(model, guide, partial(torch.optim.Adam, lr=1e-2, foreach=False), IWAE(2), engine=engine)
        for _ in range(5):
            svi.step(XS)
        assert svi.running == engine
        left.append(guide.state_dict())
    assert all(torch.equal(left[0][key], left[1][key]) for key in left[0])


@pytest.mark.parametrize("oracle, x", [(GOLDEN_1, X_1), (GOLDEN_2, X_2)], ids=["golden 1", "golden 2"])
def test_dim_minus_one_reflections_hold_the_exact_posterior(oracle, x):
    """Reflections that carry the unit vectors to the principal axes of the posterior, one after the other."""
    posterior = oracle.posterior(x)
    variance, axes = torch.linalg.eigh(posterior.cov)
    k = len(variance)
    module, left = HouseholderNormal(MLP(k), k, depth=k - 1).double(), axes
    with torch.no_grad():
        for j, step in enumerate(reversed(module.steps)):
            step.linear.weight.zero_()
            step.linear.bias.copy_(left[:, j] - torch.eye(k).double()[j])
            left = step(torch.zeros(k).double())(left.T).T
        module.head.weight.zero_()
        loc = axes.T @ posterior.loc * left.diagonal().sign()
        module.head.bias.copy_(torch.cat([loc, inverse(positive, variance.sqrt())]))
    z = torch.randn(6, k).double()
    assert_close(module(torch.zeros(k).double()).log_prob(z), posterior.log_prob(z), 1e-9)


@pytest.mark.parametrize("oracle, x", [(GOLDEN_1, X_1), (GOLDEN_2, X_2)], ids=["golden 1", "golden 2"])
def test_a_trained_householder_flow_closes_the_gap_of_the_diagonal(oracle, x):
    k = oracle.weight.shape[1]
    module, h = HouseholderNormal(MLP(k), k, depth=k).double(), torch.ones(k).double()
    optimizer = torch.optim.LBFGS(module.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def gap() -> torch.Tensor:
        q = module(h)
        base = q.base_dist.base_dist
        matrix = through(q, torch.eye(k).double()).T
        exact = Gaussian(matrix @ base.loc, matrix @ base.scale.square().diag() @ matrix.T)
        return oracle.log_px(x) - oracle.elbo(x, exact)

    def closure():
        optimizer.zero_grad()
        loss = gap()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert -1e-10 < gap() < 1e-5 < oracle.diagonal_gap


@pytest.mark.slow
def test_eight_planar_steps_and_four_sylvester_steps_fit_a_ring_better_than_a_gaussian():
    """KL(q || exp(-U1) / Z) with the exact log Z."""

    def kl(family) -> float:
        pyro.set_rng_seed(0)
        module, h = family(MLP(1), 2), torch.ones(1)
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
        for _ in range(1500):
            optimizer.zero_grad()
            divergence(module(h), 128).backward()
            optimizer.step()
        with torch.no_grad():
            return divergence(module(h), 20_000).item()

    def divergence(q, draws: int) -> torch.Tensor:
        z = q.rsample((draws,))
        return (q.log_prob(z) + ENERGIES["U1"](z)).mean() + LOG_Z_BOX["U1"]

    gaussian, planar, sylvester = kl(DiagonalNormal), kl(PlanarNormal), kl(SylvesterNormal)
    assert -0.02 < planar < gaussian - 0.15
    assert -0.02 < sylvester < gaussian - 0.15
