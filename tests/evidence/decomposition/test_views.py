"""The two views of the ELBO against closed forms, quadrature and sums over all values."""

from __future__ import annotations

import math
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import GOLDEN_1, Gaussian, LinearGaussian, assert_close, configurations, gauss_hermite, grid, kl, normal
from oracles.forcing import Forced
from pyro import poutine
from torch import nn

from dlvm.evidence.decomposition import aggregate
from dlvm.evidence.decomposition.views import views
from dlvm.guides import Diagonal, Joint, latents
from dlvm.inference import ELBO, evaluate, tempered
from dlvm.models import PPCA
from dlvm.nets import MLP

pytestmark = pytest.mark.usefixtures("float64")

XS = normal(GOLDEN_1.marginal).sample((40,))
PRIOR = Gaussian(torch.zeros(2).double(), torch.eye(2).double())


def golden() -> PPCA:
    return PPCA(GOLDEN_1.weight, GOLDEN_1.mu, 0.5)


def exact(x):
    loc, cov = GOLDEN_1.posterior(x)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.MultivariateNormal(loc, cov))


def diagonal(x):
    loc, cov = GOLDEN_1.diagonal_optimum(x)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, cov.diagonal().sqrt()).to_event(1))


def by_grid(q: Gaussian) -> dict[str, float]:
    """The parts of the rate of q(z | x_n) = q[n], by the trapezoid rule in two dimensions."""
    z, log_cell = grid(6.0, 300)
    log_qx = q.log_prob(z[:, None])
    log_q = log_qx.logsumexp(1) - math.log(log_qx.shape[1])
    mass = (log_q + log_cell).exp()
    square, step = mass.reshape(300, 300), log_cell / 2
    log_units = square.sum(1)[:, None].log() + square.sum(0).log() - 2 * step
    log_p = PRIOR.log_prob(z)
    entropy = q.entropy().mean() if q.cov.dim() > 2 else q.entropy()
    return {
        "information": (-(mass * log_q).sum() - entropy).item(),
        "marginal_kl": (mass * (log_q - log_p)).sum().item(),
        "total_correlation": (mass * (log_q - log_units.reshape(-1))).sum().item(),
        "unit_kl": (mass * (log_units.reshape(-1) - log_p)).sum().item(),
    }


def test_rate_and_distortion_are_the_closed_forms_and_those_of_evaluate():
    found, q = views(golden(), diagonal, XS, num_particles=500, draws=1), GOLDEN_1.diagonal_optimum(XS)
    assert_close(found.rate.value, kl(q, PRIOR).mean(), 1e-10)
    assert found.rate.se == 0.0 and found.kl["z"].how == "analytic"
    elbo = GOLDEN_1.elbo(XS, q).mean()
    assert abs(found.elbo.value - elbo) < 4 * found.elbo.se < 0.06
    assert_close(found.elbo.value, -(found.rate.value + found.distortion.value), 1e-10)
    other = evaluate(golden(), diagonal, XS, num_particles=500)
    assert abs(found.distortion.value - other.distortion) < 5 * math.hypot(found.distortion.se, other.elbo_se)


def test_kl_per_unit_is_the_closed_form_and_adds_up_to_the_rate():
    found, q = views(golden(), diagonal, XS, draws=1).kl["z"], GOLDEN_1.diagonal_optimum(XS)
    each = 0.5 * (q.loc.square() + q.cov.diagonal() - 1 - q.cov.diagonal().log()).mean(0)
    assert_close(found.units, each, 1e-10)
    assert_close(found.units.sum(), found.mean.value, 1e-10)
    assert views(golden(), exact, XS, draws=1).kl["z"].units is None


def test_kl_per_unit_is_sampled_where_there_is_no_formula():
    def heavy(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.StudentT(5.0, GOLDEN_1.posterior(x).loc, 0.5).to_event(1))

    found = views(golden(), heavy, XS, num_particles=200, draws=1).kl["z"]
    assert found.how == "Monte Carlo" and (found.units_se > 0).all()
    assert_close(found.units.sum(), found.mean.value, 1e-10)
    z = torch.linspace(-60, 60, 40_001)
    q = dist.StudentT(5.0, torch.zeros(()), 0.5).log_prob(z)
    negentropy = (q.exp() * q).sum() * (z[1] - z[0])
    second = GOLDEN_1.posterior(XS).loc.square().mean(0) + 0.25 * 5 / 3
    truth = negentropy + 0.5 * math.log(2 * math.pi) + 0.5 * second
    assert ((found.units - truth).abs() < 4 * found.units_se).all()


@pytest.mark.parametrize("guide, q", [(exact, GOLDEN_1.posterior), (diagonal, GOLDEN_1.diagonal_optimum)])
def test_the_aggregate_posterior_is_the_mixture_that_quadrature_has(guide, q):
    truth, found = by_grid(q(XS)), views(golden(), guide, XS, draws=4000)
    assert_close(truth["information"] + truth["marginal_kl"], kl(q(XS), PRIOR).mean(), 1e-6)
    for name, value in truth.items():
        mean = getattr(found, name)
        if mean is None:
            assert guide is exact and "independent" in found.left_out[name]
        else:
            assert mean.side == "=" and abs(mean.value - value) < 4 * mean.se < 0.2, name
    assert abs(found.imbalance.value) < 4 * found.imbalance.se
    assert found.most_information == math.log(40)


def test_errors_are_as_large_as_said():
    """z-scores over 50 seeds: standard deviation 1 within 3 of its errors, 0.1; mean 0 within 4, 0.14."""
    truth = by_grid(GOLDEN_1.diagonal_optimum(XS))
    records = [views(golden(), diagonal, XS, num_particles=1, draws=200, seed=seed) for seed in range(50)]
    for name, value in truth.items():
        z = torch.tensor([(getattr(r, name).value - value) / getattr(r, name).se for r in records])
        assert 0.7 < z.std() < 1.3 and abs(z.mean()) < 0.56, name


def test_with_fewer_data_in_the_mixture_information_is_too_low_and_the_kls_are_too_high():
    truth = by_grid(GOLDEN_1.diagonal_optimum(XS))
    records = [views(golden(), diagonal, XS, 1, aggregate=8, draws=80, seed=seed) for seed in range(30)]
    assert records[0].components == 8 and records[0].most_information == math.log(8)
    for name, sign, side in (("information", 1, ">="), ("marginal_kl", -1, "<="), ("unit_kl", -1, "<=")):
        off = torch.tensor([sign * (truth[name] - getattr(r, name).value) for r in records])
        assert off.mean() > 4 * off.std() / 30**0.5, name
        assert getattr(records[0], name).side == side
    assert records[0].total_correlation.side == "~"


def test_equal_data_share_no_information_and_distant_ones_log_n():
    same = views(golden(), diagonal, XS[:1].expand(16, -1), draws=64)
    assert_close([same.information.value, same.information.se, same.total_correlation.value], [0.0, 0.0, 0.0], 1e-9)
    assert_close(same.unit_kl.value, same.rate.value, 0.5)
    apart = views(golden(), diagonal, 1000.0 * torch.arange(16.0)[:, None] * GOLDEN_1.weight.sum(1), draws=64)
    assert_close([apart.information.value, apart.information.se], [math.log(16), 0.0], 1e-9)
    assert any("tells nearly all data apart" in line for line in apart.words)


def test_one_dimension_has_no_total_correlation():
    model = PPCA(torch.ones(3, 1), torch.zeros(3), 1.0)
    oracle = LinearGaussian(torch.ones(3, 1).double(), torch.zeros(3).double(), torch.ones(()).double())

    def guide(x):
        loc, cov = oracle.posterior(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, cov.diagonal().sqrt()).to_event(1))

    found = views(model, guide, torch.randn(20, 3), draws=100)
    assert_close([found.total_correlation.value, found.total_correlation.se], [0.0, 0.0], 1e-12)
    assert_close(found.unit_kl.value, found.marginal_kl.value, 1e-12)


def bits(x):
    with pyro.plate("data", len(x)):
        h = pyro.sample("h", dist.Bernoulli(probs=torch.tensor([0.3, 0.6])).to_event(1))
        c = pyro.sample("c", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
        loc = torch.stack([h[..., 0], h[..., 1] + c], dim=-1)
        pyro.sample("x", dist.Normal(loc, 0.5).to_event(1), obs=x)


def bits_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("h", dist.Bernoulli(logits=2 * x - 1).to_event(1))
        pyro.sample("c", dist.Categorical(logits=x[..., :1] * torch.tensor([1.0, 0.0, -1.0])))


def test_discrete_latents_are_those_of_the_sum_over_all_values():
    x = torch.randn(12, 2)
    found = views(bits, bits_guide, x, draws=6000)
    h = configurations(2).double()
    each = dist.Bernoulli(logits=2 * x[:, None] - 1).log_prob(h).exp()  # (data, values of h, 2)
    classes = (x[:, :1] * torch.tensor([1.0, 0.0, -1.0])).softmax(-1)
    qx = (each.prod(-1)[:, :, None] * classes[:, None]).flatten(1)
    q = qx.mean(0)
    prior = dist.Bernoulli(torch.tensor([0.3, 0.6])).log_prob(h).sum(-1).exp()
    p = (prior[:, None] * torch.tensor([0.2, 0.3, 0.5])).flatten()
    on = dist.Bernoulli((2 * x - 1).sigmoid().mean(0)).log_prob(h).sum(-1).exp()
    units = (on[:, None] * classes.mean(0)).flatten()
    truth = {
        "information": (qx * (qx / q).log()).sum(1).mean(),
        "marginal_kl": (q * (q / p).log()).sum(),
        "total_correlation": (q * (q / units).log()).sum(),
        "unit_kl": (q * (units / p).log()).sum(),
    }
    assert_close(found.rate.value, (qx * (qx / p).log()).sum(1).mean(), 1e-9)
    for name, value in truth.items():
        assert abs(getattr(found, name).value - value) < 4 * getattr(found, name).se < 0.1, name


def chain(x):
    with pyro.plate("data", len(x)):
        z2 = pyro.sample("z2", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        z1 = pyro.sample("z1", dist.Normal(z2, 0.5).to_event(1))
        pyro.sample("x", dist.Normal(z1, 0.5).to_event(1), obs=x)


def bottom_up(x):
    with pyro.plate("data", len(x)):
        z1 = pyro.sample("z1", dist.Normal(0.7 * x, 0.4).to_event(1))
        pyro.sample("z2", dist.Normal(0.6 * z1 + 0.1 * x, 0.5).to_event(1))


def test_all_layers_count_together():
    """q(z1, z2 | x) of the bottom-up guide is a Gaussian: mean (.7 x, .52 x), covariance [[.16, .096], [., .3076]]."""
    x = torch.linspace(-2, 2, 20)[:, None]
    found = views(chain, bottom_up, x, draws=4000)
    cov = torch.tensor([[0.16, 0.096], [0.096, 0.3076]])
    q, p = Gaussian(x * torch.tensor([0.7, 0.52]), cov), Gaussian(PRIOR.loc, torch.tensor([[1.25, 1.0], [1.0, 1.0]]))
    assert abs(found.rate.value - kl(q, p).mean()) < 4 * found.rate.se < 0.2
    assert_close(sum(site.mean.value for site in found.kl.values()), found.rate.value, 1e-10)
    assert abs(found.information.value - by_grid(q)["information"]) < 4 * found.information.se < 0.1
    assert abs(found.imbalance.value) < 4 * found.imbalance.se
    assert "independent" in found.left_out["total_correlation"]


def test_moments_and_active_units_are_those_of_the_mixture():
    found = views(golden(), diagonal, XS, num_particles=2000, draws=1).units["z"]
    loc, cov = GOLDEN_1.diagonal_optimum(XS)
    assert_close(found.between, loc.var(0, correction=0), 0.01)
    assert_close(found.mean, loc.mean(0), 0.01)
    assert_close(found.variance, loc.var(0, correction=0) + cov.diagonal(), 0.02)
    dead = LinearGaussian(GOLDEN_1.weight * torch.tensor([1.0, 0.0]), GOLDEN_1.mu, GOLDEN_1.s2)

    def half(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(dead.posterior(x).loc, 0.5).to_event(1))

    assert views(golden(), half, XS, num_particles=3, draws=1).units["z"].active == 1
    assert views(golden(), half, XS, num_particles=1, draws=1).units == {}


def test_two_samples_tell_q_of_z_from_the_prior_where_they_differ():
    x = normal(GOLDEN_1.marginal).sample((1000,))
    close = views(golden(), exact, x, num_particles=1, draws=1000)
    assert close.posterior_draws["z"].shape == close.prior_draws["z"].shape == (1000, 2)
    assert (close.two_sample["z"] < 2 * close.noise).all()

    def shifted(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.tensor([1.0, 0.0]).expand(len(x), 2), 1.0).to_event(1))

    far = views(golden(), shifted, x, num_particles=1, draws=1000)
    assert_close(far.two_sample["z"][0], math.erf(0.5 / 2**0.5), 0.06)  # 2 Phi(1/2) - 1
    assert far.two_sample["z"][1] < 2 * far.noise


def test_chunks_change_nothing(monkeypatch):
    whole = views(golden(), diagonal, XS, num_particles=1, draws=90)
    monkeypatch.setattr(aggregate, "NUMBERS_AT_ONCE", 100)
    parts = views(golden(), diagonal, XS, num_particles=1, draws=90)
    for name in ("information", "marginal_kl", "total_correlation", "unit_kl"):
        assert_close(getattr(parts, name).value, getattr(whole, name).value, 1e-10)


def test_batches_are_one_data_set_and_the_random_state_stays():
    before = torch.get_rng_state()
    whole = views(golden(), diagonal, XS, num_particles=1, draws=40)
    assert torch.equal(torch.get_rng_state(), before)
    parts = views(golden(), diagonal, [(XS[:7],), (XS[7:],)], num_particles=1, draws=40)
    assert parts.information == whole.information and parts.num_data == 40


def test_a_joint_guide_has_an_aggregate_posterior_too():
    spec = latents(chain, torch.zeros(6, 1))
    found = views(chain, Joint(spec, MLP(1, 8)), torch.randn(30, 1), draws=600, num_particles=200)
    assert abs(found.imbalance.value) < 4 * found.imbalance.se < 1.0
    assert list(found.kl) == ["z2 and z1"] and list(found.prior_draws) == ["z2", "z1"]
    assert not found.left_out.keys() & {"information", "marginal_kl"}


def test_a_flow_without_an_inverse_has_no_aggregate_posterior_and_says_why():
    flow = dist.transforms.Planar(2)

    def guide(x):
        with pyro.plate("data", len(x)):
            base = dist.Normal(GOLDEN_1.posterior(x).loc, 0.3).to_event(1)
            pyro.sample("z", dist.TransformedDistribution(base, [flow]))

    found = views(golden(), guide, XS, num_particles=50)
    assert found.information is None and found.rate.se > 0 and found.posterior_draws == {}
    assert "its flow has no inverse" in found.left_out["information"]


def test_after_an_interrupt_the_record_is_of_what_was_done(monkeypatch):
    monkeypatch.setattr(sys.modules["dlvm.evidence.decomposition.views"], "NUMBERS_AT_ONCE", 4 * 10)
    calls = []

    def guide(x):
        calls.append(len(x))
        if calls.count(10) > stop:
            raise KeyboardInterrupt
        diagonal(x)

    stop = 2
    found = views(golden(), guide, XS, num_particles=1)
    done = found.num_data
    assert not found.complete and 0 < done < 40 and found.left_out["information"] == "since it was interrupted"
    assert_close(found.rate.value, kl(GOLDEN_1.diagonal_optimum(XS[:done]), PRIOR).mean(), 1e-10)
    assert f"({done} data" in str(found) and "interrupted: the first data only" in str(found)
    calls.clear()
    stop = 0
    with pytest.raises(KeyboardInterrupt):
        views(golden(), guide, XS, num_particles=1)


def test_a_prior_that_depends_on_the_datum_has_no_marginal_kl():
    def model(x, y):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(y, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 0.5).to_event(1))

    found = views(model, guide, [(torch.randn(10, 2), torch.randn(10, 2))], draws=50)
    assert found.marginal_kl is None and found.left_out["marginal_kl"] == "since p(z) differs between data"
    assert found.information is not None and found.imbalance is None
    assert "not known, since p(z) differs between data" in str(found)


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="aggregate must be at least 1, got 0"):
        views(golden(), diagonal, XS, aggregate=0)
    with pytest.raises(ValueError, match="holds no datum"):
        views(golden(), diagonal, XS[:0])
    with pytest.raises(ValueError, match="likelihood's support"):
        views(golden(), diagonal, XS * math.nan)


def curve(values: torch.Tensor, rest: torch.Tensor, s2: float, beta: float) -> tuple[float, float]:
    """Rate and distortion of the linear beta-VAE at its optimum, for data with these eigenvalues of the covariance."""
    active = values > beta * s2
    rate = 0.5 * (values[active] / (beta * s2)).log().sum()
    error = active.sum() * beta * s2 + values[~active].sum() + rest.sum()
    dims = len(values) + len(rest)
    return rate.item(), (0.5 * dims * math.log(2 * math.pi * s2) + 0.5 * error / s2).item()


VALUES, REST, S2 = torch.tensor([4.0, 1.5]).double(), torch.tensor([0.1]).double(), 0.5


@pytest.mark.parametrize("beta", [0.3, 1.0, 5.0])
def test_the_curve_has_slope_minus_beta(beta):
    (r1, d1), (r2, d2) = (curve(VALUES, REST, S2, b) for b in (beta - 1e-4, beta + 1e-4))
    assert_close((d2 - d1) / (r2 - r1), -beta, 1e-5)


def points() -> torch.Tensor:
    """Data whose covariance has the eigenvalues exactly."""
    basis = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]
    return torch.cat([basis.T, -basis.T]) * torch.cat([VALUES, REST]).sqrt().repeat(2)[:, None] * 3**0.5


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
def test_training_under_beta_ends_on_the_curve(beta):
    xs = points()
    pyro.set_rng_seed(3)
    model = PPCA(0.3 * torch.randn(3, 2), torch.zeros(3), S2**0.5)
    model.log_scale.requires_grad_(False)
    guide = Diagonal(latents(model, xs), MLP(3, activation=nn.Identity))
    nodes, log_weight = gauss_hermite(3, 2)  # exact: the loss is a polynomial of degree two in the noise
    rows, weight = xs.repeat_interleave(len(nodes), 0), log_weight.exp().repeat(len(xs)) / len(xs)
    forced = Forced({}, {"z": nodes.repeat(len(xs), 1)})(guide)
    programs = [poutine.scale(program, scale=weight) for program in (model, forced)]
    objective = tempered(ELBO(analytic_kl=True), beta)
    parameters = [p for p in (*model.parameters(), *guide.parameters()) if p.requires_grad]
    adam = torch.optim.Adam(parameters, lr=0.05)
    schedule = torch.optim.lr_scheduler.ExponentialLR(adam, 0.997)
    for _ in range(1200):
        adam.zero_grad()
        objective.differentiable_loss(*programs, rows).backward()
        adam.step()
        schedule.step()
    found, (rate, distortion) = views(model, guide, xs, 20_000, draws=6), curve(VALUES, REST, S2, beta)
    assert abs(found.rate.value - rate) < 0.005
    assert abs(found.distortion.value - distortion) < 0.005 + 4 * found.distortion.se < 0.05
