"""What an Estimate claims of itself: error bars, k-hat, sides, words, and what Ctrl-C leaves."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import GOLDEN_1, MIXTURE, X_1, Gaussian, Q, assert_close, chi2, normal
from rich.progress import TimeRemainingColumn

from dlvm.evidence.estimate import Estimate
from dlvm.evidence.log_px.defensive import defensive
from dlvm.evidence.log_px.enumeration import enumerated
from dlvm.evidence.log_px.exact import exact
from dlvm.evidence.log_px.importance import importance, prior_sampling
from dlvm.evidence.log_px.quadrature import quadrature
from dlvm.inference.bounds.importance import effective_sample_size
from dlvm.inference.console import bar
from dlvm.inference.programs import chunks
from dlvm.models import PPCA

XS = X_1 + torch.linspace(-1, 1, 20, dtype=torch.float64)[:, None]


def golden() -> PPCA:
    return PPCA(GOLDEN_1.weight, GOLDEN_1.mu, 0.5)


def guide_of(shift: float, spread: float):
    """q(z | x) off the posterior by a shift, its covariance ``spread`` times Q's."""

    def guide(x):
        with pyro.plate("data", len(x)):
            loc = GOLDEN_1.posterior(x).loc + shift * torch.tensor([0.2, -0.1])
            pyro.sample("z", dist.MultivariateNormal(loc, spread * Q.cov))

    return guide


def mixture(x):
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Categorical(MIXTURE.log_pi.exp()))
        pyro.sample("x", dist.MultivariateNormal(MIXTURE.loc[c], MIXTURE.cov[c]), obs=x)


def mixture_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("c", dist.Categorical(torch.ones(len(x), 3)))


def within(found: Estimate, truth: torch.Tensor, errors: float) -> float:
    return ((found.log_px - truth).abs() < errors * found.log_px_se).double().mean().item()


METHODS = {
    "prior": (lambda x: prior_sampling(golden(), x, 2000), GOLDEN_1.log_px),
    "guide": (lambda x: importance(golden(), guide_of(1.0, 1.0), x, 500), GOLDEN_1.log_px),
    "defensive": (lambda x: defensive(golden(), guide_of(1.0, 1.0), x, 500, share=0.4), GOLDEN_1.log_px),
    "classes": (lambda x: importance(mixture, mixture_guide, x, 500), MIXTURE.log_px),
}


@pytest.mark.parametrize("name", METHODS)
def test_two_standard_errors_hold_the_truth_for_95_percent_of_the_data(float64, name):
    """400 data of the model: the share has a standard deviation of 0.011; 4 of them, and 1 % for weights with skew."""
    estimate, truth = METHODS[name]
    x = torch.randn(400, 2) if name == "classes" else normal(GOLDEN_1.marginal).sample((400,))
    found = estimate(x)
    share = within(found, truth(x), 2.0)
    assert 0.90 < share < 0.995
    assert 0.5 < within(found, truth(x), 1.0) < 0.8  # 68 %: bars are not too wide either


@pytest.mark.slow
def test_the_error_of_the_mean_is_honest_over_seeds(float64):
    """z-scores of means over 20 data at 60 seeds: standard deviation 1 within 4 / sqrt(120)."""
    truth = GOLDEN_1.log_px(XS).mean()
    found = [importance(golden(), guide_of(1.0, 1.0), XS, 300, seed=seed) for seed in range(60)]
    z = torch.tensor([(f.mean - truth) / f.mean_se for f in found])
    assert abs(z.std() - 1) < 4 / math.sqrt(120) and abs(z.mean()) < 0.6
    assert_close(found[0].mean_se, math.sqrt(chi2(GOLDEN_1.posterior(X_1), Q) / 300 / 20), 2e-3)


def test_khat_tells_a_guide_too_narrow_from_a_good_one(float64):
    """Variances a tenth of the posterior's: k = 0.9 in theory; a guide wider than the posterior has bounded weights."""
    narrow = importance(golden(), guide_of(0.0, 0.05), XS, 2000)
    good = importance(golden(), guide_of(1.0, 1.5), XS, 2000)
    assert narrow.khat_bad > 0.8 and narrow.khat.mean() > 0.7
    assert good.khat_bad == 0.0 and good.khat.max() < 0.5
    assert narrow.ess.mean() < 0.2 * good.ess.mean()


def test_the_share_counts_only_data_that_have_a_khat():
    khat = torch.tensor([0.1, 0.71, math.nan, 0.69, 2.0])
    found = Estimate("m", "lower", *[torch.zeros(5)] * 3, khat, 100)
    assert found.khat_bad == 0.5
    assert math.isnan(importance(golden().double(), guide_of(0.0, 1.0), XS, 10).khat_bad)


def test_columns_from_weights_are_their_definitions(float64):
    w = torch.tensor([[1.0, 2.0], [3.0, 2.0], [2.0, 2.0]])
    found = Estimate.of_weights("m", w.log())
    assert_close(found.log_px, [math.log(2.0), math.log(2.0)], 1e-12)
    assert_close(found.log_px_se, [0.5 / math.sqrt(3), 0.0], 1e-12)  # sd 1, mean 2
    assert_close(found.ess, [36 / 14, 3.0], 1e-12)
    assert found.num_samples == 3 and found.khat.isnan().all()
    assert_close(Estimate.of_weights("m", w.log() - 800).log_px, found.log_px - 800, 1e-10)


def test_an_upper_bound_comes_from_weights_of_mean_one_over_px(float64):
    """w = q(z) / p(x, z) at draws of the posterior, q narrower than it: log_px >= exact in expectation."""
    posterior = GOLDEN_1.posterior(XS)
    q = Gaussian(posterior.loc, 0.5 * posterior.cov)
    z = normal(posterior).sample((20_000,))
    log_w = q.log_prob(z) - GOLDEN_1.log_joint(XS, z)
    found = Estimate.of_weights("reciprocal", log_w, "upper")
    truth = GOLDEN_1.log_px(XS)
    assert ((found.log_px - truth).abs() < 5 * found.log_px_se).all()
    few = Estimate.of_weights("reciprocal", log_w.reshape(20_000, -1)[:4000].reshape(4, -1), "upper")
    bias = (few.log_px.reshape(1000, 20) - truth).mean()
    assert bias > 0.02  # four samples: chi2 / 8 above
    assert_close(found.ess, effective_sample_size(log_w), 1e-9)
    assert str(found).startswith("log p(x) <= ")


def test_four_samples_from_a_guide_are_below(float64):
    x = XS.repeat(50, 1)
    found = importance(golden(), guide_of(1.0, 1.0), x, 4)
    assert (found.log_px - GOLDEN_1.log_px(x)).mean() < -0.04  # chi2 / 8 = 0.07
    assert str(found).startswith("log p(x) >= ")


def test_it_prints_its_error_and_its_trust():
    found = Estimate(
        "m", "lower", *[torch.tensor([1.0, 2.0])] * 2, torch.tensor([3.0, 4.0]), torch.tensor([0.9, 0.1]), 9
    )
    assert str(found) == "log p(x) >= 1.500 ± 1.118   ESS 3.5 of 9   k-hat > 0.7 for 50 % of 2 data   (m, 0.0 s)"
    assert str(Estimate.exactly("m", torch.tensor([1.0, 2.0]), seconds=2.0)) == "log p(x) = 1.500   (m, 2.0 s)"
    few = Estimate.of_weights("m", torch.zeros(2, 1))
    assert "± 0.000" in str(few) and "no k-hat of 1 data" in str(few)


def test_sides_and_nan_weights_are_refused():
    with pytest.raises(ValueError, match="side must be one of lower, upper, exact, got 'above'"):
        Estimate.of_weights("m", torch.zeros(3, 2), "above")
    with pytest.raises(ValueError, match="1 data have NaN weights: .*not finite"):
        Estimate.of_weights("m", torch.tensor([[0.0, math.nan], [0.0, 1.0]]))


def test_joined_keeps_the_order_and_knows_whether_all_was_done():
    parts = [Estimate.of_weights("m", torch.full((30, n), float(n))) for n in (2, 3)]
    found = Estimate.joined(parts, 1.5, asked=5)
    assert_close(found.log_px, torch.tensor([2.0, 2.0, 3.0, 3.0, 3.0]), 1e-12)
    assert found.seconds == 1.5 and found.complete
    part = Estimate.joined(parts, 1.5, asked=9)
    assert not part.complete and "interrupted after 5 of 9 data" in str(part)


def interrupted(after: int):
    """Batches of five data, Ctrl-C in place of the next one."""
    for start in range(0, 5 * after, 5):
        yield XS[start : start + 5]
    raise KeyboardInterrupt


RUNS = {
    "importance": lambda data: importance(golden(), guide_of(1.0, 1.0), data, 30),
    "prior": lambda data: prior_sampling(golden(), data, 30),
    "defensive": lambda data: defensive(golden(), guide_of(1.0, 1.0), data, 30),
    "exact": lambda data: exact(golden(), data),
    "quadrature": lambda data: quadrature(golden(), data),
}


@pytest.mark.parametrize("name", RUNS)
def test_ctrl_c_leaves_what_was_done(float64, name):
    found = RUNS[name](interrupted(2))
    assert (found.num_data, found.complete) == (10, False) and found.asked > 10
    assert "interrupted after 10 of" in str(found)
    assert torch.equal(found.log_px, RUNS[name]([XS[:5], XS[5:10]]).log_px)
    with pytest.raises(KeyboardInterrupt):
        RUNS[name](interrupted(0))


def test_ctrl_c_in_a_counted_list_says_how_many_there_were(float64, monkeypatch):
    calls, original = [], Estimate.of_weights.__func__

    def pressed(cls, *args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(cls, *args, **kwargs)

    monkeypatch.setattr(Estimate, "of_weights", classmethod(pressed))
    found = RUNS["importance"]([XS[:5], XS[5:10], XS[10:15], XS[15:]])
    assert (found.num_data, found.asked) == (10, 20)


def test_ctrl_c_ends_an_enumeration(float64):
    def batches():
        yield torch.zeros(3, 2)
        raise KeyboardInterrupt

    found = enumerated(mixture, batches())
    assert (found.num_data, found.complete) == (3, False)


@pytest.mark.parametrize("run", ["defensive", "importance"])
def test_the_bar_reaches_the_end_and_has_a_time_left(float64, monkeypatch, run):
    shown = []
    monkeypatch.setattr(chunks, "bar", lambda show: shown.append(bar(show)) or shown[-1])
    RUNS[run]([XS[:10], XS[10:]])
    (task,) = shown[0].tasks
    assert task.total == 20 and task.completed == pytest.approx(20)
    assert any(isinstance(column, TimeRemainingColumn) for column in shown[0].columns)
