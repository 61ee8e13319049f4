"""LowRank, Mixture, StudentT, RealNVP and NeuralSpline guides: exact where they can be, on any model, by any engine."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import GOLDEN_1, GOLDEN_2, X_1, X_2, Gaussian, LinearGaussian, assert_close, gauss_hermite, inverse
from pyro import poutine
from torch import nn

from dlvm.distributions import VonMisesFisherDirection, positive
from dlvm.distributions.scale import limited
from dlvm.guides import Diagonal, FullRank, Latent, LowRank, Mixture, NeuralSpline, RealNVP, StudentT, latents
from dlvm.inference import ELBO, IWAE, STL, SVI, DReG, log_weights
from dlvm.models import PPCA
from dlvm.nets import MLP

GUIDES = {
    "low_rank": LowRank,
    "mixture": Mixture,
    "student_t": StudentT,
    "real_nvp": partial(RealNVP, width=6),
    "spline_coupling": partial(NeuralSpline, width=6, bins=4),
    "spline_autoregressive": partial(NeuralSpline, kind="autoregressive", width=6, bins=4),
}
every_guide = pytest.mark.parametrize("name", GUIDES)
X = torch.randn(5, 4, generator=torch.Generator().manual_seed(3))


def hierarchy(x=None):
    with pyro.plate("data", len(x)):
        z2 = pyro.sample("z2", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        z1 = pyro.sample("z1", dist.Normal(z2.repeat_interleave(2, -1)[..., :3], 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z1.sum(-1, keepdim=True).expand(*z1.shape[:-1], 4), 1.0).to_event(1), obs=x)


def odd(x=None):
    """A scalar, a positive vector, a simplex and a matrix."""
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        b = pyro.sample("b", dist.Gamma(2.0, torch.ones(3)).to_event(1))
        c = pyro.sample("c", dist.Dirichlet(torch.ones(4)))
        d = pyro.sample("d", dist.Normal(torch.zeros(2, 3), 1.0).to_event(2))
        mean = a + b.sum(-1) + c[..., 0] + d.sum((-1, -2))
        pyro.sample("x", dist.Normal(mean.unsqueeze(-1).expand(*mean.shape, 4), 1.0).to_event(1), obs=x)


ORDERS = ["top_down", "bottom_up", "independent"]
OBJECTIVES = [ELBO(), IWAE(3), IWAE(3, DReG()), ELBO(estimator=STL())]


# The order says what a site's features hold, the objective what is made of its density: each meets each in some guides.
@pytest.mark.parametrize(
    ("name", "order", "objective"),
    [
        (n, o, OBJECTIVES[j])
        for i, n in enumerate(GUIDES)
        for k, o in enumerate(ORDERS)
        for j in range(4)
        if (i + j) % 3 == k
    ],
    ids=str,
)
def test_one_step_in_every_order_moves_every_parameter(name, order, objective):
    guide = GUIDES[name](latents(hierarchy, X), MLP(4, 8), order=order)
    before = [value.detach().clone() for value in guide.parameters()]
    svi = SVI(hierarchy, guide, partial(torch.optim.Adam, lr=1e-2), objective)
    assert torch.tensor(svi.step(X)).isfinite()
    assert all((a != b).any() and b.isfinite().all() for a, b in zip(before, guide.parameters(), strict=True))


@every_guide
def test_odd_supports_and_particles_are_met(name):
    guide = GUIDES[name](latents(odd, X), MLP(4, 8))
    with pyro.plate("particles", 6, dim=-2):
        trace = poutine.trace(guide).get_trace(X)
        replayed = poutine.trace(poutine.replay(odd, trace=trace)).get_trace(X)
    for t in (trace, replayed):
        t.compute_log_prob()
    for site in "abcd":
        assert replayed.nodes[site]["fn"].support.check(trace.nodes[site]["value"]).all()
        assert trace.nodes[site]["log_prob"].shape == (6, 5) and trace.nodes[site]["log_prob"].isfinite().all()


@every_guide
def test_path_and_score_make_up_the_total_derivative(name, float64):
    """d log q(z(phi); phi) = path + score: the draw is scored as a constant by way of the inverse."""
    model = PPCA(GOLDEN_2.weight, GOLDEN_2.mu, 1.0)
    xs = X_2 + torch.randn(6, 5)
    guide = GUIDES[name](latents(model, xs), MLP(5, 8)).double()
    phi = list(guide.parameters())

    def gradient(estimator):
        pyro.set_rng_seed(1)
        return torch.autograd.grad(ELBO(estimator=estimator).differentiable_loss(model, guide, xs), phi)

    pyro.set_rng_seed(1)
    site = poutine.trace(guide).get_trace(xs).nodes["z"]
    score = torch.autograd.grad(site["fn"].log_prob(site["value"].detach().clone()).sum(), phi)
    for total, path, part in zip(gradient(None), gradient(STL()), score, strict=True):
        assert_close(total - path, part, 1e-7)
        assert (total - path).abs().max() > 1e-6


@pytest.mark.slow
@every_guide
@pytest.mark.parametrize("objective", [ELBO, partial(IWAE, 3), partial(IWAE, 3, DReG())])
def test_captured_steps_are_the_eager_ones_bit_for_bit(name, objective):
    left = {}
    for engine in ("eager", "captured"):
        pyro.set_rng_seed(5)
        model = PPCA(torch.randn(4, 2), torch.zeros(4), 0.5)
        guide = GUIDES[name](latents(model, X), MLP(4, 8))
        adam = partial(torch.optim.Adam, lr=1e-2, foreach=False, fused=False)
        svi = SVI(model, guide, adam, objective(), engine=engine)
        for _ in range(6):
            svi.step(X)
        assert svi.running == engine
        left[engine] = [value.detach().clone() for part in (model, guide) for value in part.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(left["eager"], left["captured"], strict=True))


def golden(oracle, x, Guide):
    xs = x + torch.randn(4, len(x))
    model = PPCA(oracle.weight, oracle.mu, oracle.s2.sqrt())
    return model, Guide(latents(model, xs), MLP(len(x), activation=nn.Identity)).double(), xs


def least(loss, guide) -> float:
    settings = dict(max_iter=600, tolerance_grad=1e-9, tolerance_change=1e-11, history_size=30)
    optimizer = torch.optim.LBFGS(guide.parameters(), line_search_fn="strong_wolfe", **settings)

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    return loss().item()


def gaussian_gap(oracle, x, Guide) -> float:
    """log p(x) less the best ELBO, both in closed form."""
    _, guide, xs = golden(oracle, x, Guide)

    def loss():
        q = guide.posteriors[0](guide.features(xs))
        q = q if hasattr(q, "covariance_matrix") else dist.MultivariateNormal(q.mean, torch.diag_embed(q.variance))
        return (oracle.log_px(xs) - oracle.elbo(xs, Gaussian(q.mean, q.covariance_matrix))).mean()

    return least(loss, guide)


def four_dimensions() -> LinearGaussian:
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    return LinearGaussian(weight, torch.zeros(6).double(), torch.tensor(0.5).double())


@pytest.mark.slow
def test_low_rank_lies_between_diagonal_and_full_rank(float64):
    """Gaps in four dimensions fall with the rank; rank dim - 1 closes them, rank 0 would be the diagonal's formula."""
    oracle = four_dimensions()
    gaps = [gaussian_gap(oracle, torch.zeros(6), partial(LowRank, rank=rank)) for rank in (1, 2, 3, 4)]
    diagonal = gaussian_gap(oracle, torch.zeros(6), Diagonal)
    expected = 0.5 * (oracle.precision.diagonal().log().sum() - torch.logdet(oracle.precision)).item()
    assert diagonal == pytest.approx(expected, abs=1e-6)
    assert diagonal > gaps[0] + 0.01 and gaps[0] > gaps[1] + 1e-3
    assert -1e-9 < gaps[2] < 1e-6 and -1e-9 < gaps[3] < 1e-6
    assert gaussian_gap(oracle, torch.zeros(6), FullRank) < 1e-6


@pytest.mark.parametrize("oracle, x", [(GOLDEN_1, X_1), (GOLDEN_2, X_2)], ids=["golden 1", "golden 2"])
def test_low_rank_of_the_golden_models_closes_the_gap_by_its_own_draws(oracle, x, float64):
    Guide = partial(LowRank, rank=len(oracle.precision))
    model, guide, xs = golden(oracle, x, Guide)

    def loss():
        q = guide.posteriors[0](guide.features(xs))
        return (oracle.log_px(xs) - oracle.elbo(xs, Gaussian(q.mean, q.covariance_matrix))).mean()

    assert -1e-9 < least(loss, guide) < 1e-6
    with torch.no_grad():
        log_w = log_weights(model, guide, xs, num_particles=500)
    assert (log_w - oracle.log_px(xs)).abs().max() < 1e-2


@pytest.mark.slow
def test_one_linear_coupling_holds_any_gaussian_in_two_dimensions(float64):
    """z_2 = loc + M z_1 + scale eps_2, by quadrature in place of noise."""
    model, guide, xs = golden(GOLDEN_1, X_1, partial(RealNVP, depth=1, width=()))
    eps, log_weight = gauss_hermite(4, 2)

    def loss():
        q = guide.posteriors[0](guide.features(xs))
        z, log_q = eps.unsqueeze(1), q.base_dist.log_prob(eps.unsqueeze(1))
        for step in q.transforms:
            y, z = z, step(z)
            log_q = log_q - step.log_abs_det_jacobian(y, z)
        log_r = GOLDEN_1.log_joint(xs, z) - log_q - GOLDEN_1.log_px(xs)
        return -(log_weight.exp().unsqueeze(-1) * log_r).sum(0).mean()

    assert -1e-7 < least(loss, guide) < 1e-5 < GOLDEN_1.diagonal_gap
    with torch.no_grad():
        log_w = log_weights(model, guide, xs, num_particles=500)
    assert (log_w - GOLDEN_1.log_px(xs)).abs().max() < 1e-2


LOCS, SCALE = torch.tensor([[-2.0, 0.5], [1.0, -1.5], [0.5, 2.0]]).double(), 0.7


def clusters(x):
    """A mixture prior and a Gaussian likelihood: the posterior is a mixture with known parts."""
    weights, parts = dist.Categorical(torch.tensor([0.2, 0.3, 0.5])), dist.Normal(LOCS, SCALE).to_event(1)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.MixtureSameFamily(weights, parts))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def exact_mixture(x):
    """The guide of the posterior at one x, and log p(x)."""
    guide = Mixture({"z": Latent(torch.Size([2]))}, MLP(2, activation=nn.Identity), components=3).double()
    evidence = torch.tensor([0.2, 0.3, 0.5]).log() + dist.Normal(LOCS, (1 + SCALE**2) ** 0.5).log_prob(x).sum(-1)
    variance = 1 / (1 + SCALE**-2)
    loc = variance * (x + LOCS / SCALE**2)
    scale = inverse(positive, torch.full((3, 2), variance).sqrt())
    logits = inverse(limited, evidence.log_softmax(-1)).unsqueeze(-1)
    with torch.no_grad():
        for value in guide.posteriors[0].parameters():
            value.zero_()
        guide.posteriors[0].parts.bias.copy_(torch.cat([loc, scale, logits], -1).flatten())
    return guide, evidence.logsumexp(-1)


def test_mixture_holds_the_exact_posterior_where_its_path_gradient_vanishes(float64):
    x = torch.tensor([0.3, 0.1])
    guide, log_px = exact_mixture(x)
    xs, phi = x.expand(50, 2), list(guide.parameters())
    with torch.no_grad():
        assert_close(log_weights(clusters, guide, xs, num_particles=20), log_px.expand(20, 50), 1e-9)
    for objective in (ELBO(estimator=STL()), IWAE(3, DReG())):
        gradient = torch.autograd.grad(objective.differentiable_loss(clusters, guide, xs), phi)
        assert max(part.abs().max() for part in gradient) < 1e-8
    noisy = torch.autograd.grad(ELBO().differentiable_loss(clusters, guide, xs), phi)
    assert max(part.abs().max() for part in noisy) > 0.1


def test_student_t_guide_equals_a_student_t_prior(float64):
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.StudentT(torch.tensor([5.0, 9.0]), 1.0, 2.0).to_event(1))
            pyro.sample("x", dist.Normal(torch.zeros(4), 1.0).to_event(1), obs=x)

    xs = X.double()
    guide = StudentT(latents(model, xs), MLP(4, 8)).double()
    df = inverse(positive, (torch.tensor([5.0, 9.0]) - 2) / 30)
    with torch.no_grad():
        head = guide.posteriors[0].head
        head.weight.zero_()
        head.bias.copy_(torch.cat([torch.ones(2), inverse(positive, torch.full((2,), 2.0)), df]))
    log_px = dist.Normal(0.0, 1.0).log_prob(xs).sum(-1)
    with torch.no_grad():
        assert_close(log_weights(model, guide, xs, num_particles=7), log_px.expand(7, 5), 1e-8)


@pytest.mark.slow
def test_training_a_flow_leaves_the_best_gaussian_behind(float64):
    """A posterior on a curve: z_2 given z_1 lies near z_1^2."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            mean = z[..., 1:] - 1.5 * z[..., :1] ** 2 + 1
            pyro.sample("x", dist.Normal(mean, 0.3).to_event(1), obs=x)

    xs, bounds = torch.zeros(100, 1), {}
    for name, Guide in (("full_rank", FullRank), ("nvp", RealNVP), ("spline", partial(NeuralSpline, width=32))):
        pyro.set_rng_seed(0)
        guide = Guide({"z": Latent(torch.Size([2]))}, MLP(1, 2)).double()
        svi = SVI(model, guide, partial(torch.optim.Adam, lr=1e-2), ELBO())
        for _ in range(300):
            svi.step(xs)
        with torch.no_grad():
            bounds[name] = log_weights(model, guide, xs, num_particles=50).mean().item()
    assert min(bounds["nvp"], bounds["spline"]) > bounds["full_rank"] + 0.2


def test_a_guide_of_directions_by_hand_learns_the_posterior_of_a_direction(float64):
    """Prior uniform on the sphere, likelihood exp(kappa z . x): the posterior is von Mises-Fisher around x."""
    x = torch.nn.functional.normalize(torch.randn(6, 3), dim=-1)
    head = VonMisesFisherDirection(MLP(3, activation=nn.Identity))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.ProjectedNormal(torch.zeros(3)))
            pyro.factor("x", 4.0 * (z * x).sum(-1))

    def guide(x):
        pyro.module("head", head)
        with pyro.plate("data", len(x)):
            pyro.sample("z", head(x))

    with torch.no_grad():
        head.head.weight.copy_(torch.cat([torch.eye(3), torch.zeros(1, 3)]))
        head.head.bias.copy_(torch.cat([torch.zeros(3), inverse(positive, torch.tensor([4.0]))]))
    log_z = torch.sinh(torch.tensor(4.0)).log() - torch.tensor(4.0).log()
    trace = poutine.trace(guide).get_trace(x)
    replayed = poutine.trace(poutine.replay(model, trace=trace)).get_trace(x)
    log_w = replayed.nodes["z"]["fn"].log_prob(trace.nodes["z"]["value"]) + replayed.nodes["x"]["fn"].log_factor
    assert_close(log_w - head(x).log_prob(trace.nodes["z"]["value"]), log_z.expand(6), 1e-9)


@pytest.mark.parametrize(
    "make, message",
    [
        (partial(NeuralSpline, kind="planar"), "kind must be one of coupling, autoregressive, got 'planar'"),
        (partial(NeuralSpline, kind="autoregressive", width=1), "must be at least dim=2"),
        (partial(NeuralSpline, bins=0), "bins must be between 2 and 500"),
        (partial(LowRank, rank=0), "rank must be at least 1"),
        (partial(Mixture, components=1), "components must be at least 2"),
        (partial(StudentT, start=1.0), "start must be above 2"),
        (partial(RealNVP, depth=0), "depth must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make({"z": Latent(torch.Size([2]))}, MLP(4, 8))
