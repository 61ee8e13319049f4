"""Draws from the prior, from a guide and from both, against closed forms."""

from __future__ import annotations

import math
from importlib import import_module

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import GOLDEN_1, GOLDEN_SBN, MIXTURE, X_1, X_SBN, Gaussian, Q, assert_close

from dlvm.evidence.log_px.defensive import defensive
from dlvm.evidence.log_px.enumeration import enumerated
from dlvm.evidence.log_px.importance import importance, prior_sampling
from dlvm.guides import IAF, Diagonal, FullRank, Joint, latents
from dlvm.inference import evaluate
from dlvm.inference.bounds.importance import log_mean_exp
from dlvm.models import PPCA
from dlvm.nets import MLP

XS = X_1 + torch.linspace(-1, 1, 20, dtype=torch.float64)[:, None]


def golden() -> PPCA:
    return PPCA(GOLDEN_1.weight, GOLDEN_1.mu, 0.5)


@pytest.fixture
def pair(float64):
    """(oracle, x -> q(z | x)) -> (model, guide)."""

    def make(oracle, q):
        def guide(x):
            loc, cov = q(x)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.MultivariateNormal(loc.expand(len(x), -1), cov))

        return PPCA(oracle.weight, oracle.mu, oracle.s2.sqrt()), guide

    return make


def missing(x):
    """q(z | x) of finite variance, the same chi2 for every x."""
    loc = GOLDEN_1.posterior(x).loc + torch.tensor([0.2, -0.1])
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.MultivariateNormal(loc, Q.cov))


def wide(x):
    """N(0, 2 I): its weights against the posterior are bounded."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), math.sqrt(2.0)).to_event(1))


def sbn(x):
    """Two bits, dependent given x, and three observed ones."""
    with pyro.plate("data", len(x)):
        h = pyro.sample("h", dist.Bernoulli(logits=GOLDEN_SBN.prior).to_event(1))
        logits = h @ GOLDEN_SBN.weight.T + GOLDEN_SBN.bias
        pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


def sbn_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("h", dist.Bernoulli(logits=GOLDEN_SBN.phi).to_event(1))


def two_modes(x):
    """z ~ N(0, 1), x | z ~ N(z^2, 0.1^2): the posterior of x = 1 has a mode at each of -1 and 1."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z**2, 0.1).to_event(1), obs=x)


def one_mode(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.ones(len(x), 1), 0.06).to_event(1))


ESTIMATORS = {
    "prior": lambda x: prior_sampling(golden(), x, 200),
    "guide": lambda x: importance(golden(), missing, x, 200),
    "defensive": lambda x: defensive(golden(), missing, x, 200, share=0.3),
}


@pytest.mark.parametrize("which", ESTIMATORS)
def test_mean_weight_is_unbiased_for_px(float64, which):
    """E[w] = p(x): t-statistics of 4 data over 100 repetitions stay below 4.5 (7e-6 each were they normal)."""
    found = ESTIMATORS[which](XS[::5].repeat(100, 1)).log_px.reshape(100, 4)
    ratio = (found - GOLDEN_1.log_px(XS[::5])).exp() - 1
    assert (ratio.mean(0).abs() < 4.5 * ratio.std(0) / 10).all()
    assert (ratio.std(0) > 0.01).all()


def test_prior_sampling_weighs_by_the_likelihood_alone(float64):
    """With the likelihood of PPCA without weights, log p(x | z) is the same for every z."""
    model = PPCA(torch.zeros(4, 2), GOLDEN_1.mu, 0.5)
    found = prior_sampling(model, XS, 30)
    assert_close(found.log_px, model.log_px(XS), 1e-10)
    assert_close(found.ess, torch.full((20,), 30.0), 1e-9)
    assert (found.side, found.num_samples, found.complete) == ("lower", 30, True)


def test_importance_from_the_posterior_is_exact_and_from_the_prior_is_prior_sampling(pair):
    model, posterior = pair(GOLDEN_1, GOLDEN_1.posterior)
    found = importance(model, posterior, XS, 30)
    assert_close(found.log_px, GOLDEN_1.log_px(XS), 1e-9)
    assert_close(found.log_px_se, torch.zeros(20), 1e-7)

    prior = pair(GOLDEN_1, lambda x: Gaussian(torch.zeros(2), torch.eye(2)))[1]
    a, b = importance(model, prior, XS, 4000), prior_sampling(model, XS, 4000)
    assert ((a.log_px - b.log_px).abs() < 5 * (a.log_px_se**2 + b.log_px_se**2).sqrt()).all()


def test_importance_is_what_evaluate_says(pair):
    programs = pair(GOLDEN_1, lambda x: Gaussian(GOLDEN_1.posterior(x).loc + 0.1, Q.cov))
    record, found = evaluate(*programs, XS, num_particles=100, seed=3), importance(*programs, XS, 100, seed=3)
    assert_close(
        [found.mean, found.mean_se, found.ess.mean().item(), found.khat.mean().item(), found.khat_bad],
        [record.log_px, record.log_px_se, record.ess, record.khat, record.khat_bad],
        1e-12,
    )


def test_batches_and_chunks_join_in_the_data_order(pair):
    exact = pair(GOLDEN_1, GOLDEN_1.posterior)
    for data in (XS, [XS[:3], (XS[3:4],), [XS[4:]]], iter([XS[:11], XS[11:]])):
        assert_close(importance(*exact, data, 5, chunk=7).log_px, GOLDEN_1.log_px(XS), 1e-9)
    for chunk in (130, 3000):
        found = defensive(*exact, XS, 400, chunk=chunk)
        assert ((found.log_px - GOLDEN_1.log_px(XS)).abs() < 5 * found.log_px_se).all()
        assert (found.num_data, found.num_samples) == (20, 400)


def test_discrete_latents_are_sampled_and_agree_with_their_sum(float64):
    x = torch.stack([X_SBN, 1 - X_SBN])
    truth = enumerated(sbn, x).log_px
    assert_close(truth, GOLDEN_SBN.log_px(x), 1e-12)
    for found in (prior_sampling(sbn, x, 4000), importance(sbn, sbn_guide, x, 4000)):
        assert ((found.log_px - truth).abs() < 4 * found.log_px_se).all()
        assert (found.log_px_se < 0.05).all()


def test_prior_sampling_of_a_mixture(float64):
    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(MIXTURE.log_pi.exp()))
            pyro.sample("x", dist.MultivariateNormal(MIXTURE.loc[c], MIXTURE.cov[c]), obs=x)

    x = torch.tensor([[0.5, 0.0], [2.0, -2.0], [-1.0, 1.0]])
    found = prior_sampling(model, x, 5000)
    assert ((found.log_px - MIXTURE.log_px(x)).abs() < 4 * found.log_px_se).all()


def test_a_guide_that_misses_a_mode_is_confidently_wrong_and_the_defence_finds_it(float64):
    """By symmetry the mode that the guide knows has half of the mass: log 2 is missing, 100 standard errors of it."""
    x = torch.ones(20, 1)
    z = torch.linspace(-4, 4, 40_001)
    log_joint = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z**2, 0.1).log_prob(torch.tensor(1.0))
    truth = log_joint.logsumexp(0) + (z[1] - z[0]).log()
    wrong = importance(two_modes, one_mode, x, 2000)
    assert_close(wrong.log_px - truth, torch.full((20,), -math.log(2)), 0.05)
    assert wrong.khat_bad < 0.5 and (truth - wrong.mean) > 100 * wrong.mean_se
    right = defensive(two_modes, one_mode, x, 2000, share=0.5)
    assert ((right.log_px - truth).abs() < 4 * right.log_px_se).all()
    assert abs(right.mean - truth) < 3 * right.mean_se < 0.1


def test_the_defence_lowers_the_worst_khat_of_a_guide_too_narrow(pair):
    """Variances a tenth of the posterior's give k = 0.9; with the prior among the proposals weights are bounded."""
    x = GOLDEN_1.mu + XS / 10
    narrow = pair(GOLDEN_1, lambda x: Gaussian(GOLDEN_1.posterior(x).loc, GOLDEN_1.posterior(x).cov / 10))
    alone, defended = importance(*narrow, x, 2000), defensive(*narrow, x, 2000, share=0.3)
    assert alone.khat.max() > 0.9 and alone.khat_bad > 0.7
    assert defended.khat.max() < 0.5 and defended.khat_bad == 0.0
    assert ((defended.log_px - GOLDEN_1.log_px(x)).abs() < 4 * defended.log_px_se).all()


def test_defensive_weights_are_bounded(pair, monkeypatch):
    """w <= max_z p(x | z) / share, the maximum at the least-squares z."""
    narrow = pair(GOLDEN_1, lambda x: Gaussian(GOLDEN_1.posterior(x).loc, GOLDEN_1.posterior(x).cov / 100))
    seen = []
    monkeypatch.setattr(
        import_module("dlvm.evidence.log_px.defensive"), "log_mean_exp", lambda w: seen.append(w) or log_mean_exp(w)
    )
    defensive(*narrow, XS, 2000, share=0.25)
    best = torch.linalg.lstsq(GOLDEN_1.weight, (XS - GOLDEN_1.mu).T).solution.T
    bound = dist.Normal(best @ GOLDEN_1.weight.T + GOLDEN_1.mu, 0.5).to_event(1).log_prob(XS) - math.log(0.25)
    assert seen[0].shape == (2000, 20) and (seen[0] <= bound + 1e-9).all()


def test_defensive_standard_error_is_that_of_the_two_sets(float64):
    """z-scores of 400 data: standard deviation 1 within 4 of its own errors, 1 / sqrt(2 * 400)."""
    found = defensive(golden(), missing, XS.repeat(20, 1), 500, share=0.5)
    z = (found.log_px - GOLDEN_1.log_px(XS).repeat(20)) / found.log_px_se
    assert abs(z.std().item() - 1) < 4 / math.sqrt(800)


@pytest.mark.parametrize("make", [Diagonal, FullRank, IAF])
def test_defensive_evaluates_any_amortised_guide_with_a_density(float64, make):
    model = golden()
    guide = make(latents(model, XS), MLP(4, 8)).double()
    found = defensive(model, guide, XS, 1500, share=0.5)
    assert ((found.log_px - GOLDEN_1.log_px(XS)).abs() < 5 * found.log_px_se).all()


def test_defensive_with_constrained_and_dependent_sites(float64):
    """rate ~ Gamma(2, 2), z | rate ~ N(0, 1 / rate), x | z ~ N(z, 1), against a grid over both."""

    def model(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(torch.full((len(x),), 2.0), 2.0))
            z = pyro.sample("z", dist.Normal(0.0, rate.rsqrt()))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.tensor([-2.0, 0.0, 3.0])
    rate = torch.linspace(-12, 4, 4001).exp()
    log_r = dist.Gamma(2.0, 2.0).log_prob(rate) + rate.log()
    marginal = dist.Normal(0.0, (1 + 1 / rate).sqrt()).log_prob(x[:, None])
    truth = (log_r + marginal).logsumexp(-1) + math.log(16 / 4000)
    guide = Diagonal(latents(model, x), MLP(1, 8)).double()
    found = defensive(model, lambda x: guide(x[:, None]), x, 4000, share=0.5)
    assert ((found.log_px - truth).abs() < 4 * found.log_px_se).all() and found.log_px_se.max() < 0.05


def test_defensive_reaches_all_layers_of_a_hierarchy(float64):
    """z2 -> z1 -> x, all Gaussian: x ~ N(0, W (A A' + I / 2) W' + I / 4)."""
    a, w = torch.randn(2, 1), torch.randn(3, 2)

    def model(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(z2 @ a.T, 0.5**0.5).to_event(1))
            pyro.sample("x", dist.Normal(z1 @ w.T, 0.5).to_event(1), obs=x)

    x = torch.randn(5, 3)
    truth = dist.MultivariateNormal(torch.zeros(3), w @ (a @ a.T + torch.eye(2) / 2) @ w.T + torch.eye(3) / 4)
    for order in ("top_down", "bottom_up"):
        guide = Diagonal(latents(model, x), MLP(3, 8), order=order).double()
        found = defensive(model, guide, x, 4000, share=0.5)
        assert ((found.log_px - truth.log_prob(x)).abs() < 4.5 * found.log_px_se).all()
        assert found.log_px_se.max() < 0.2


def test_engines_agree_on_prior_sampling(float64):
    a, b = (prior_sampling(golden(), XS, 300, chunk=500, engine=engine) for engine in ("eager", "captured"))
    assert_close(a.log_px, b.log_px, 1e-10)


def test_a_stream_of_its_own(float64):
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    first = defensive(golden(), missing, XS, 30), prior_sampling(golden(), XS, 30)
    assert torch.equal(torch.rand(2), expected)
    again = defensive(golden(), missing, XS, 30), prior_sampling(golden(), XS, 30)
    assert all(torch.equal(a.log_px, b.log_px) for a, b in zip(first, again, strict=True))
    assert not torch.equal(prior_sampling(golden(), XS, 30, seed=1).log_px, first[1].log_px)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, math.nan])
def test_shares_outside_zero_to_one_are_refused(share):
    with pytest.raises(ValueError, match=r"share must be strictly between 0 and 1, got .*use importance"):
        defensive(golden(), missing, XS, 10, share=share)


def test_defensive_says_what_it_cannot_weigh(float64):
    model = golden()
    joint = Joint(latents(model, XS), MLP(4, 8)).double()
    with pytest.raises(ValueError, match=r"guide draws \['joint', 'z'\] where .* \['z'\].*use importance"):
        defensive(model, joint, XS, 10)
    with pytest.raises(ValueError, match="latent site 'h' is discrete.*enumerated.*importance"):
        defensive(sbn, sbn_guide, X_SBN[None], 10)
    with pytest.raises(ValueError, match="num_particles must be at least 2 .* got 1"):
        defensive(model, missing, XS, 1)


@pytest.mark.parametrize(
    "estimator", [lambda data: importance(golden(), wide, data, 10), lambda data: defensive(golden(), wide, data, 10)]
)
def test_no_data_is_refused(float64, estimator):
    with pytest.raises(ValueError, match="data hold no batch"):
        estimator([])
    with pytest.raises(ValueError, match="holds no datum"):
        estimator(XS[:0])
