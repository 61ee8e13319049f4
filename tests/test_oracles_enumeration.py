"""The oracles of discrete latents and of gradient noise judged: printed numbers, and each by a second route."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from oracles import (
    GOLDEN_SBN,
    GOLDEN_SNR,
    MIXTURE,
    X_SBN,
    Gaussian,
    Toy,
    assert_close,
    configurations,
    expected_bound,
    finite_difference,
    golden_toy,
    gradients,
    iwae,
    kl,
    log_px_grid,
    m2_bound,
    mean_and_variance,
    naive_score,
    normal,
    posterior_grid,
    snr,
    snr_rates,
    toy_data,
    tuple_probabilities,
    tuples,
    vimco,
)
from torch.distributions import (
    Bernoulli,
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    kl_divergence,
)

GOLDEN_GRADIENT = [0.12111208, 0.21254961]


def log_mean(log_w):
    return log_w.logsumexp(0) - math.log(len(log_w))


def bound_of_phi(num_particles):
    return lambda phi: expected_bound(log_mean, GOLDEN_SBN._replace(phi=phi), X_SBN, num_particles)


def test_golden_sbn():
    assert_close(GOLDEN_SBN.log_px(X_SBN), -1.52197571, 5e-9)
    assert_close(GOLDEN_SBN.elbo(X_SBN), -2.14592267, 5e-9)
    assert_close(bound_of_phi(3)(GOLDEN_SBN.phi), -1.87354438, 5e-9)


def test_sbn_by_loops_and_by_torchs_distributions():
    def bernoulli(logits):
        return Independent(Bernoulli(logits=logits), 1)

    joint, q = [], []
    for bits in itertools.product([0.0, 1.0], repeat=2):
        h = torch.tensor(bits, dtype=torch.float64)
        likelihood = bernoulli(GOLDEN_SBN.weight @ h + GOLDEN_SBN.bias)
        joint.append(bernoulli(GOLDEN_SBN.prior).log_prob(h) + likelihood.log_prob(X_SBN))
        q.append(bernoulli(GOLDEN_SBN.phi).log_prob(h))
    joint, q = torch.stack(joint), torch.stack(q)
    assert_close(GOLDEN_SBN.log_px(X_SBN), joint.exp().sum().log())
    assert_close(GOLDEN_SBN.posterior(X_SBN), joint.exp() / joint.exp().sum())
    assert_close(GOLDEN_SBN.log_q(configurations(2)), q)
    gap = kl_divergence(Categorical(logits=q), Categorical(logits=joint))
    assert_close(GOLDEN_SBN.log_px(X_SBN) - GOLDEN_SBN.elbo(X_SBN), gap)


def test_sbn_sums_to_one_over_all_x_in_a_batch():
    xs = configurations(3)
    assert_close(GOLDEN_SBN.log_px(xs).exp().sum(), 1)
    assert_close(GOLDEN_SBN.posterior(xs).sum(-1), torch.ones(8))
    assert_close(GOLDEN_SBN.elbo(xs)[5], GOLDEN_SBN.elbo(X_SBN))


def test_tuples_are_all_there_and_their_probabilities_sum_to_one():
    h = tuples(2, 3)
    assert h.shape == (64, 3, 2) and h.dtype == torch.float64 and len(h.reshape(64, 6).unique(dim=0)) == 64
    assert_close(tuple_probabilities(GOLDEN_SBN.phi, h).sum(), 1)
    assert_close(configurations(2), [[0, 0], [0, 1], [1, 0], [1, 1]])
    with pytest.raises(ValueError, match="bits=24: expected 1 to 20"):
        tuples(4, 6)


def test_bounds_rise_from_the_elbo_to_log_px_and_the_mean_weight_is_px():
    bounds = [bound_of_phi(k)(GOLDEN_SBN.phi).item() for k in range(1, 7)]
    assert_close(bounds[0], GOLDEN_SBN.elbo(X_SBN))
    assert sorted(bounds) == bounds and len(set(bounds)) == 6 and bounds[-1] < GOLDEN_SBN.log_px(X_SBN)
    mean_weight = expected_bound(lambda log_w: log_w.exp().mean(0), GOLDEN_SBN, X_SBN, 3)
    assert_close(mean_weight.log(), GOLDEN_SBN.log_px(X_SBN))


@pytest.mark.parametrize(
    "estimator, variance, atol", [(naive_score, [4.398, 0.741], 5e-4), (vimco, [0.1079, 0.1090], 5e-5)]
)
def test_golden_gradient_and_the_variance_of_its_estimators(estimator, variance, atol):
    probabilities = tuple_probabilities(GOLDEN_SBN.phi, tuples(2, 3))
    mean, spread = mean_and_variance(estimator(GOLDEN_SBN, X_SBN, 3), probabilities)
    assert_close(mean, GOLDEN_GRADIENT, 5e-9)
    assert_close(spread, variance, atol)


@pytest.mark.parametrize("num_particles", [1, 2, 3, 4])
def test_four_routes_to_the_gradient(num_particles):
    phi = GOLDEN_SBN.phi.clone().requires_grad_()
    (exact,) = torch.autograd.grad(bound_of_phi(num_particles)(phi), phi)
    assert_close(finite_difference(bound_of_phi(num_particles), phi), exact, 1e-9)
    probabilities = tuple_probabilities(GOLDEN_SBN.phi, tuples(2, num_particles))
    for estimator in (naive_score, vimco) if num_particles > 1 else (naive_score,):
        mean, _ = mean_and_variance(estimator(GOLDEN_SBN, X_SBN, num_particles), probabilities)
        assert_close(mean, exact, 1e-13)


def test_vimco_needs_two_particles():
    with pytest.raises(ValueError, match="num_particles=1: expected at least 2"):
        vimco(GOLDEN_SBN, X_SBN, 1)


@pytest.mark.parametrize("name", ["prior", "weight", "bias"])
def test_gradient_of_the_model_is_the_mean_of_weighted_gradients(name):
    parameter = getattr(GOLDEN_SBN, name).clone().requires_grad_()
    sbn = GOLDEN_SBN._replace(**{name: parameter})
    (exact,) = torch.autograd.grad(expected_bound(log_mean, sbn, X_SBN, 3), parameter)
    numeric = finite_difference(
        lambda value: expected_bound(log_mean, GOLDEN_SBN._replace(**{name: value}), X_SBN, 3), parameter
    )
    assert_close(numeric, exact, 1e-9)
    h = tuples(2, 3)
    log_joint = sbn.log_joint(X_SBN, h)
    weights = (log_joint - sbn.log_q(h)).softmax(-1).detach()
    by_weights = (tuple_probabilities(sbn.phi, h)[:, None] * weights * log_joint).sum()
    assert_close(torch.autograd.grad(by_weights, parameter)[0], exact, 1e-13)


def test_mean_and_variance_of_a_fair_coin():
    mean, variance = mean_and_variance(torch.tensor([[0.0, 1], [2, 1]]).double(), torch.tensor([0.5, 0.5]).double())
    assert_close(mean, [1, 1], 0)
    assert_close(variance, [1, 0], 0)


def test_mixture_by_torchs_own_and_its_gap():
    xs = 2 * torch.randn(20, 2, dtype=torch.float64)
    parts = MultivariateNormal(MIXTURE.loc, MIXTURE.cov)
    assert_close(MIXTURE.log_px(xs), MixtureSameFamily(Categorical(logits=MIXTURE.log_pi), parts).log_prob(xs))
    r = MIXTURE.responsibilities(xs)
    assert_close(r[0], MIXTURE.log_pi.exp() * parts.log_prob(xs[0]).exp() / MIXTURE.log_px(xs)[0].exp())
    q_logits = torch.randn(20, 3, dtype=torch.float64)
    gap = kl_divergence(Categorical(logits=q_logits), Categorical(logits=MIXTURE.log_joint(xs)))
    assert_close(MIXTURE.gap(xs, q_logits), gap)
    assert_close(MIXTURE.elbo(xs, q_logits), MIXTURE.log_px(xs) - gap)
    assert_close(MIXTURE.elbo(xs, r.log()), MIXTURE.log_px(xs))
    assert gap.min() > 1e-4


def test_m2_bound_is_tight_for_the_softmax_and_for_nothing_else():
    labelled = 3 * torch.randn(30, 4, dtype=torch.float64)
    assert_close(m2_bound(labelled, labelled - 5), labelled.logsumexp(-1))
    other = labelled + torch.randn(30, 4, dtype=torch.float64)
    gap = kl_divergence(Categorical(logits=other), Categorical(logits=labelled))
    assert_close(m2_bound(labelled, other), labelled.logsumexp(-1) - gap)
    assert (m2_bound(labelled, other) < labelled.logsumexp(-1)).all()
    certain = torch.tensor([0, -math.inf, -math.inf, -math.inf], dtype=torch.float64)
    assert_close(m2_bound(labelled, certain.expand(30, 4)), labelled[:, 0])


def test_toy_by_a_grid_and_its_optimum():
    mu, xs = toy_data(50, 2)
    toy = Toy.optimum(mu).perturbed(0.3)
    z, p = posterior_grid(lambda z: toy.log_w(xs[0], z) + toy.q(xs[0]).log_prob(z))
    assert_close(log_px_grid(lambda z: toy.log_w(xs[0], z) + toy.q(xs[0]).log_prob(z)), toy.log_px(xs[0]), 1e-8)
    assert_close(p, toy.posterior(xs[0]).log_prob(z).exp(), 1e-8)
    gap = kl_divergence(normal(toy.q(xs)), normal(toy.posterior(xs)))
    assert_close(toy.elbo(xs), toy.log_px(xs) - gap)
    for name, value in Toy.optimum(mu)._asdict().items():
        if name != "mu":
            slope = finite_difference(lambda v, n=name: Toy.optimum(mu)._replace(**{n: v}).elbo(xs).mean(), value)
            assert_close(slope, torch.zeros_like(value), 1e-8)


def test_toy_data_have_the_moments_of_the_model():
    mu, xs = toy_data(100_000, 3, seed=1)
    assert mu.shape == (3,) and xs.shape == (100_000, 3)
    assert ((xs.mean(0) - mu).abs() < 4 * math.sqrt(2 / 100_000)).all()
    assert ((xs.var(0) - 2).abs() < 4 * math.sqrt(8 / 100_000)).all()


def test_toy_gradients_are_those_of_the_exact_bound():
    toy = Toy(*(torch.tensor(value).double() for value in ([0.3], [[0.6]], [0.5])))
    x, num_particles, n = torch.tensor([1.7]).double(), 4, 200_000

    def bound(moved):
        return iwae(lambda z: toy_joint(moved, x, z), moved.q(x), num_particles, points=1201)

    sampled = gradients(toy, x, num_particles, n)
    by_b = finite_difference(lambda b: bound(toy._replace(b=b)), toy.b, 1e-4)
    by_mu = finite_difference(lambda mu: bound(toy._replace(mu=mu)), toy.mu, 1e-4)
    for estimate, exact in ((sampled.iwae, by_b), (sampled.dreg, by_b), (sampled.mu, by_mu)):
        assert ((estimate.mean(0) - exact).abs() < 4 * estimate.std(0) / math.sqrt(n)).all()
    assert ((sampled.stl.mean(0) - by_b).abs() > 20 * sampled.stl.std(0) / math.sqrt(n)).all()


def toy_joint(toy, x, z):
    return Gaussian(toy.mu, torch.eye(1).double()).log_prob(z) + Gaussian(z, torch.eye(1).double()).log_prob(x)


def test_iwae_and_dreg_share_their_mean_and_stl_does_not():
    mu, xs = toy_data()
    toy, n = Toy.optimum(mu).perturbed(), 10_000
    sampled = gradients(toy, xs[0], 10, n)

    def t(difference):
        return difference.mean(0).abs() / (difference.std(0) / math.sqrt(n))

    assert t(sampled.iwae - sampled.dreg).max() < 4
    assert t(sampled.stl - sampled.dreg).max() > 100


def test_one_particle_has_closed_form_snr():
    toy, x = golden_toy()
    sampled, error = gradients(toy, x, 1, 100_000), toy.q(x).loc - toy.posterior(x).loc
    assert_close(sampled.stl, sampled.dreg, 0)
    assert_close(snr(sampled.dreg), 4 * error.abs() / math.sqrt(2 / 3), 0.02)
    assert_close(snr(sampled.iwae), error.abs() / math.sqrt(2 / 3), 0.02)
    assert_close(sampled.iwae.mean(0), -2 * error, 0.02)
    assert_close(kl(toy.q(x), toy.posterior(x)), toy.log_px(x) - toy.elbo(x))


def test_golden_snr_and_its_slopes():
    toy, x = golden_toy()
    found = {name: [] for name in GOLDEN_SNR}
    for num_particles, n in ((1, 40_000), (4, 40_000), (16, 40_000), (64, 20_000), (256, 10_000)):
        sampled = gradients(toy, x, num_particles, n)
        found["iwae"].append(snr(sampled.iwae, mean=sampled.dreg.mean(0)).mean())
        found["dreg"].append(snr(sampled.dreg).mean())
        found["mu"].append(snr(sampled.mu).mean())
    for name, tolerance in (("iwae", 0.08), ("dreg", 0.04), ("mu", 0.08)):
        ratio = torch.stack(found[name]) / torch.tensor(GOLDEN_SNR[name])
        assert ((ratio - 1).abs() < tolerance).all(), (name, ratio)
    last = {name: math.log(values[-1] / values[-2], 4) for name, values in found.items()}
    assert -0.52 < last["iwae"] < -0.44 and 0.42 < last["dreg"] < 0.5 and 0.45 < last["mu"] < 0.5


@pytest.mark.slow
def test_snr_approaches_its_closed_form_rate():
    mu, xs = toy_data(10, 2, seed=3)
    toy, n = Toy.optimum(mu).perturbed(0.2, seed=1), 20_000
    sampled, root, rates = gradients(toy, xs[0], 1024, n), 32.0, snr_rates(toy, xs[0])
    assert_close(snr(sampled.iwae, mean=sampled.dreg.mean(0)) * root / rates["iwae"], [1, 1], 0.03)
    assert_close(snr(sampled.dreg) / root / rates["dreg"], [1, 1], 0.04)
    assert_close(snr(sampled.mu) / root / rates["mu"], [1, 1], 0.03)
