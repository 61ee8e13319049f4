"""Variational diffusion: its forward process, one random layer against all, and Gaussian data, which are known."""

from __future__ import annotations

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import assert_close
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import kl_divergence

from dlvm.distributions import BitDenoiser, Denoiser, LinearSchedule, MonotoneSchedule, Noising, UNet, Units
from dlvm.distributions.diffusion.random_layer import EstimatedLog, SpreadUniform
from dlvm.guides import ForwardDiffusion, RandomTime
from dlvm.inference import ELBO, IWAE, SVI, Renyi, evaluate, fit, free_bits, load, log_px, save, tempered
from dlvm.models import Diffusion, RandomLayer
from dlvm.nets import MLP

D, T = 3, 5


def build(layers: int = T, schedule: nn.Module | None = None, levels: int | None = None):
    """A diffusion with random weights, its guide, the same by random layers, and data."""
    pyro.set_rng_seed(1)
    noising = Noising(LinearSchedule(-3.0, 2.0) if schedule is None else schedule, D, levels).double()
    model = Diffusion(noising, Denoiser(MLP(D + 9, 8, D)), layers).double()
    x = torch.randn(6, D).double() if levels is None else torch.randint(levels, (6, D)).double() / (levels - 1)
    return model, ForwardDiffusion(noising, layers), RandomLayer(model), RandomTime(noising, layers), x


class Linear(nn.Module):
    """The best denoiser of data from N(loc, variance): E[e | z_t] is linear in z_t."""

    def __init__(self, loc: float, variance: float):
        super().__init__()
        self.loc, self.variance = loc, variance

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        alpha, sigma = torch.sigmoid(-gamma).sqrt().unsqueeze(-1), torch.sigmoid(gamma).sqrt().unsqueeze(-1)
        return sigma * (z - alpha * self.loc) / (alpha.square() * self.variance + sigma.square())


@pytest.mark.parametrize(
    "schedule", [LinearSchedule(-3.0, 2.0), MonotoneSchedule(4, -3.0, 2.0)], ids=["line", "pieces"]
)
def test_the_layers_given_the_data_are_the_conditionals_of_one_diffusion(schedule):
    """q(z_s | z_t, x) q(z_t | x) has q(z_s | x) as its marginal, by the rule for linear maps of Gaussians."""
    noising, x = Noising(schedule, 1), torch.tensor([[1.7]])
    s, t = torch.tensor(0.3), torch.tensor(0.8)
    gammas = schedule(s), schedule(t)
    above = noising(x, t).base_dist
    step = lambda z: noising.between(noising.signal(x), z, *gammas).base_dist  # noqa: E731
    slope = step(above.loc + 1).loc - step(above.loc).loc
    below = noising(x, s).base_dist
    assert_close(step(above.loc).loc, below.loc, 1e-6)
    assert_close((slope * above.scale).square() + step(above.loc).scale.square(), below.scale.square(), 1e-6)


def test_one_random_layer_sums_to_all_layers_by_enumeration_over_t():
    """At the same z_t, T terms of the factor are the T closed-form KLs of the literal program."""
    model, guide, random, times, x = build()
    q = poutine.trace(guide).get_trace(x)
    p = poutine.trace(poutine.replay(model, trace=q)).get_trace(x)
    kl = [kl_divergence(q.nodes[f"z_{i}"]["fn"], p.nodes[f"z_{i}"]["fn"]) for i in range(T + 1)]
    found = []
    for i in range(1, T + 1):
        z = {
            "t": torch.full((6,), (i - 0.5) / T).double(),
            "z_0": q.nodes["z_0"]["value"],
            "z_t": q.nodes[f"z_{i}"]["value"],
        }
        trace = poutine.trace(poutine.condition(random, z)).get_trace(x)
        trace.compute_log_prob()
        found.append(-trace.nodes["layer"]["log_prob"] - kl[T])
        assert_close(found[-1], T * kl[i - 1], 1e-9)
        p.compute_log_prob()
        assert_close(trace.nodes["x"]["log_prob"], p.nodes["x"]["log_prob"], 1e-10)
        drawn = poutine.trace(poutine.condition(times, z)).get_trace(x)
        drawn.compute_log_prob()
        for name in z:
            assert_close(drawn.nodes[name]["log_prob"], trace.nodes[name]["log_prob"], 1e-10)
    assert_close(sum(found) / T, sum(kl[:T]), 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("levels", [None, 2, 4])
def test_the_bound_of_a_random_layer_is_that_of_all_layers_on_average(levels):
    model, guide, random, times, x = build(levels=levels)
    pyro.set_rng_seed(4)
    K = 1000
    whole = torch.stack([-torch.tensor(ELBO(K // 10, analytic_kl=True).loss(model, guide, x)) for _ in range(10)])
    one = torch.stack([-torch.tensor(ELBO(K).loss(random, times, x)) for _ in range(10)])
    se = math.hypot(whole.std() / 10**0.5, one.std() / 10**0.5)
    assert abs(whole.mean() - one.mean()) < 4 * se and se < 0.6


def test_bits_are_told_from_z_0_by_bayes_rule():
    noising = Noising(LinearSchedule(0.5, 2.0), 2, levels=2)
    z = torch.randn(4, 2)
    values = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    likelihood = torch.stack([noising(v.expand(4, 2), torch.tensor(0.0)).log_prob(z) for v in values])
    expected = likelihood - likelihood.logsumexp(0)
    assert_close(torch.stack([noising.likelihood(z).log_prob(v) for v in values]), expected, 1e-5)
    greys = Noising(LinearSchedule(0.5, 2.0), 2, levels=3).likelihood(z)
    total = sum(greys.log_prob(torch.tensor([a, b]) / 2).exp() for a in range(3) for b in range(3))
    assert_close(total, torch.ones(4), 1e-5)


def test_independent_bits_need_no_net_and_have_their_own_probability_in_the_limit():
    """A constant logit is the best denoiser of them: in continuous time the bound is log p(x) itself."""

    class Constant(nn.Module):
        in_features, out_features = 1 + 9, 1

        def forward(self, seen: Tensor) -> Tensor:
            return torch.full_like(seen[..., :1], math.log(0.2 / 0.8))

    pyro.set_rng_seed(8)
    noising = Noising(LinearSchedule(-6.0, 12.0), 1, levels=2).double()
    model = RandomLayer(Diffusion(noising, BitDenoiser(Constant()), 10).double(), continuous=True)
    for value, probability in ((0.0, 0.8), (1.0, 0.2)):
        x = torch.full((40_000, 1), value).double()
        trace = poutine.trace(RandomTime(noising)).get_trace(x)
        joint = poutine.trace(poutine.replay(model, trace=trace)).get_trace(x)
        joint.compute_log_prob()
        found = (joint.nodes["layer"]["log_prob"] + joint.nodes["x"]["log_prob"]).detach()
        assert abs(found.mean() - math.log(probability)) < 4 * found.std() / 200 and found.std() < 10


def gaussian_bound(x: Tensor, schedule: LinearSchedule, layers: int, loc: float, variance: float) -> Tensor:
    """The ELBO of T layers with the best linear denoiser, in closed form, for each datum of one dimension."""
    gamma = schedule(torch.arange(layers + 1, dtype=torch.float64) / layers).detach()
    alpha2, sigma2 = torch.sigmoid(-gamma), torch.sigmoid(gamma)
    total = -0.5 * (alpha2[-1] * x**2 + sigma2[-1] - 1 - sigma2[-1].log())
    noise = sigma2[0] / alpha2[0]
    total = total - 0.5 * (math.log(2 * math.pi) + noise.log() + 1)
    a2, s2 = alpha2[1:], sigma2[1:]
    marginal = a2 * variance + s2  # e - eps(z) = e (1 - s2 / marginal) - sigma alpha (x - loc) / marginal
    error = (1 - s2 / marginal) ** 2 + s2 * a2 * (x[:, None] - loc) ** 2 / marginal**2
    return total - 0.5 * (gamma.diff().expm1() * error).sum(-1)


def test_many_layers_of_the_best_denoiser_are_exact_for_gaussian_data():
    """The bound rises with T to log p(x), and what the programs give is the closed form."""
    loc, variance = 0.7, 0.4
    schedule = LinearSchedule(-14.0, 14.0).double()
    x = torch.linspace(-1, 2, 7).double()
    exact = dist.Normal(loc, variance**0.5).log_prob(x)
    bounds = [gaussian_bound(x, schedule, layers, loc, variance) for layers in (10, 100, 1000, 100_000)]
    lacking = [(exact - bound).mean().item() for bound in bounds]
    assert lacking[0] > lacking[1] > lacking[2] > lacking[3] > -1e-4
    assert_close(bounds[-1], exact, 2e-3)
    pyro.set_rng_seed(2)
    for layers, continuous, expected in ((10, False, bounds[0]), (None, True, exact)):
        noising = Noising(schedule, 1).double()
        model = RandomLayer(Diffusion(noising, Linear(loc, variance), 10).double(), continuous)
        guide, many = RandomTime(noising, layers), x.repeat(6000)[:, None]
        trace = poutine.trace(guide).get_trace(many)
        joint = poutine.trace(poutine.replay(model, trace=trace)).get_trace(many)
        joint.compute_log_prob()
        found = (joint.nodes["layer"]["log_prob"] + joint.nodes["x"]["log_prob"]).detach().reshape(6000, 7)
        assert ((found.mean(0) - expected).abs() < 5 * found.std(0) / 6000**0.5 + 1e-3).all()


def test_draws_of_the_best_denoiser_are_gaussian_data():
    noising = Noising(LinearSchedule(-8.0, 8.0), 1)
    pyro.set_rng_seed(3)
    x = Diffusion(noising, Linear(0.7, 0.4), layers=200)(n=1500)
    assert abs(x.mean().item() - 0.7) < 0.05 and abs(x.var().item() - 0.4) < 0.05
    assert RandomLayer(Diffusion(noising, Linear(0.7, 0.4), layers=2))(n=3).shape == (3, 1)


def test_what_needs_importance_weights_refuses_a_random_layer_and_takes_every_layer():
    model, guide, random, times, x = build()
    words = "site 'layer' is an unbiased estimate .*no importance weights; train by ELBO.*RandomLayer its .model"
    for objective in (IWAE(2), Renyi(0.5, 2), tempered(ELBO(), 0.5), free_bits(ELBO(), 0.1)):
        with pytest.raises(ValueError, match=words):
            next(fit(random, times, objective, [(x,)], epochs=1, progress=False))
    for ask in (evaluate, log_px):
        with pytest.raises(ValueError, match=words):
            ask(random, times, x, num_particles=3)
    found = evaluate(model, guide, x, num_particles=50, engine="eager")
    assert found.log_px > found.elbo and found.rate > 0
    assert issubclass(EstimatedLog, type(EstimatedLog(torch.zeros(2)).expand([2])))


@pytest.mark.parametrize("continuous", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_captured_steps_are_those_of_pyro_and_every_parameter_moves(continuous):
    left = []
    for engine in ("eager", "captured"):
        model, _, _, _, x = build(schedule=MonotoneSchedule(3, -3.0, 2.0).double())
        start = [p.detach().clone() for p in model.parameters()]
        random, times = RandomLayer(model, continuous), RandomTime(model.noising, None if continuous else T)
        svi = SVI(random, times, partial(torch.optim.Adam, lr=1e-2), ELBO(), engine=engine)
        pyro.set_rng_seed(2)
        losses = [svi.step(x) for _ in range(3)]
        assert svi.running == engine
        assert all((p != before).any() for p, before in zip(model.parameters(), start, strict=True))
        left.append((losses, [p.detach().clone() for p in model.parameters()]))
    assert left[0][0] == pytest.approx(left[1][0], rel=1e-10)
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(left[0][1], left[1][1], strict=True))


@pytest.mark.filterwarnings("ignore:.*was not registered in the param store")
def test_in_continuous_time_the_shares_of_time_change_no_bound_and_are_trained_to_lower_its_variance():
    """A denoiser whose error lies at high noise alone: the upper half of the line takes most of the time."""

    class Poor(nn.Module):
        def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
            sigma = torch.sigmoid(gamma).sqrt().unsqueeze(-1)
            return sigma * z + 3.0 * (gamma > 0).to(z).unsqueeze(-1)

    pyro.set_rng_seed(5)
    schedule = MonotoneSchedule(2, -4.0, 4.0)
    noising, x = Noising(schedule, D), torch.randn(4000, D)
    random, times = RandomLayer(Diffusion(noising, Poor(), 10), continuous=True), RandomTime(noising)

    def terms() -> Tensor:
        trace = poutine.trace(poutine.replay(random, trace=poutine.trace(times).get_trace(x))).get_trace(x)
        trace.compute_log_prob()
        return trace.nodes["layer"]["log_prob"].detach()

    before = terms()
    for parameter in schedule.ends.parameters():
        parameter.requires_grad_(False)
    svi = SVI(random, times, partial(torch.optim.Adam, lr=0.05), ELBO(), engine="eager")
    for _ in range(60):
        svi.step(x)
    after, shares = terms(), schedule.logits.softmax(-1)
    assert shares[1] > 0.7 and after.var() < 0.8 * before.var()
    assert abs(before.mean() - after.mean()) < 4 * math.hypot(before.std(), after.std()) / 4000**0.5


def test_times_are_uniform_each_and_spread_together():
    pyro.set_rng_seed(0)
    t = torch.stack([SpreadUniform().expand([8]).sample() for _ in range(2000)])
    assert (t.sort(1).values.diff() - 1 / 8).abs().max() < 1e-5
    first = t[:, 0]
    assert abs(first.mean() - 0.5) < 4 * (1 / 12 / 2000) ** 0.5 and abs(first.var() - 1 / 12) < 0.01
    assert abs(torch.corrcoef(t[:, :2].T)[0, 1] + 1 / 7) < 0.1
    assert (SpreadUniform().expand([3]).log_prob(torch.rand(3)) == 0).all()


def test_the_unet_sees_the_whole_image_and_starts_with_the_best_guess_for_standard_data():
    net = UNet(64, width=4)
    denoiser, z = Denoiser(net), torch.randn(2, 3, 64)
    assert_close(denoiser(z, torch.zeros(3)), z * 0.5**0.5, 1e-6)
    nn.init.normal_(net.last[1].weight)
    place = torch.zeros(64)
    jacobian = torch.autograd.functional.jacobian(lambda z: denoiser(z, torch.tensor(0.0))[27].sum(), place)
    assert (jacobian != 0).float().mean() > 0.9


def test_columns_in_other_units_have_the_density_of_the_data_themselves():
    """log p(2 + 3 u) = log p(u) - dim log 3."""
    u = torch.randn(5, D)
    bounds = []
    for units, x in ((None, u), (Units(torch.full((D,), 2.0), torch.full((D,), 3.0)), 2 + 3 * u)):
        noising = Noising(LinearSchedule(), D, units=units)
        pyro.set_rng_seed(6)
        model = RandomLayer(Diffusion(noising, Linear(0.0, 1.0), 10))
        bounds.append(-ELBO(20).loss(model, RandomTime(noising, 10), x) / 5)
    assert bounds[0] - bounds[1] == pytest.approx(D * math.log(3.0), abs=1e-2)


def test_a_pair_that_was_saved_still_shares_its_schedule(tmp_path):
    model, guide, _, _, x = build()
    save(tmp_path, model, guide, x)
    back, again = load(tmp_path)
    assert back.noising is again.noising and torch.equal(
        back.noising(x, torch.tensor(0.5)).mean, guide.noising(x, torch.tensor(0.5)).mean
    )
