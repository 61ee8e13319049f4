"""log_px, predict and impute against closed forms and enumeration."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

from dlvm.inference import evaluate, impute, log_px, predict
from dlvm.inference.use import weighed

from .pairs import CENTRES, CLASSES, LINEAR, LOC, MIXTURE, POINTS, TABLE, WEIGHT, Table, X, guess, posterior


def wide(x, n=1):
    """An independent q(z | x) about the posterior, wider than it."""
    with pyro.plate("data", len(x)):
        return pyro.sample("z", dist.Normal(LINEAR.posterior(x.nan_to_num(0.0)).loc + 0.1, 0.8).to_event(1))


def alone(x, y=None, n=1):
    """A guide that leaves all to the model."""


def test_log_px_is_exact_under_the_posterior():
    found = log_px(LINEAR, posterior, X, num_particles=30)
    torch.testing.assert_close(found.log_px, LINEAR.log_px(X).double(), rtol=0, atol=1e-5)
    assert found.log_px_se.max() < 1e-5 and (found.ess > 29.99).all()


def test_log_px_is_within_its_error_and_that_of_evaluate():
    found = log_px(LINEAR, wide, X)
    z = (found.log_px - LINEAR.log_px(X)) / found.log_px_se
    assert 0.4 < z.square().mean() < 1.8 and z.abs().max() < 4 and found.khat.max() < 0.7
    whole = evaluate(LINEAR, wide, X, num_particles=1000)
    assert found.log_px.mean().item() == pytest.approx(whole.log_px, abs=4 * whole.log_px_se)


def test_log_px_of_pieces_is_that_of_each_row(monkeypatch):
    whole = log_px(LINEAR, posterior, X, num_particles=30).log_px
    monkeypatch.setattr(weighed, "MOST_KEPT", 100 * 4 * 7)
    torch.testing.assert_close(log_px(LINEAR, posterior, X, num_particles=30).log_px, whole, rtol=0, atol=1e-5)
    table = log_px(LINEAR, posterior, TABLE, num_particles=30).log_px
    assert isinstance(table, Table) and table.index == TABLE.index and table.columns == ["log_px"]


def test_what_the_guide_leaves_out_is_drawn_from_the_model():
    found = log_px(MIXTURE, alone, POINTS, num_particles=4000)
    exact = (CLASSES.log() + dist.Normal(CENTRES, 1.0).to_event(1).log_prob(POINTS[:, None])).logsumexp(-1)
    assert ((found.log_px - exact) / found.log_px_se).abs().max() < 4


@pytest.mark.parametrize("guide", [guess, alone])
def test_a_class_has_the_probabilities_of_enumeration(guide):
    found, exact = predict(MIXTURE, guide, POINTS, "y", num_particles=4000, num_draws=2000), MIXTURE.posterior(POINTS)
    error = (exact * (1 - exact) / found.ess[:, None]).sqrt()
    assert ((found.probabilities - exact).abs() < 4.5 * error + 1e-4).all()
    assert found.mean is None and found.values.tolist() == [0, 1, 2]
    drawn = torch.nn.functional.one_hot(found.draws, 3).float().mean(0)
    assert (drawn - found.probabilities).abs().max() < 0.06


def seldom(x=None, n=1):
    """A bit that is mostly 0, and a number about it."""
    with pyro.plate("data", n if x is None else len(x)):
        y = pyro.sample("y", dist.Bernoulli(torch.tensor(0.02)))
        return pyro.sample("x", dist.Normal(y, 0.2), obs=x)


def test_a_single_datum_has_its_posterior_even_if_another_draw_is_the_same():
    found = predict(seldom, alone, torch.ones(1), "y", num_particles=2000)
    torch.testing.assert_close(found.mean, torch.ones(1), rtol=0, atol=0.01)  # 1 / (1 + 49 exp(-12.5))


def given(x, y=None, n=1):
    """p(y | x), of which x is no part."""
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(2 * x, 0.5).to_event(1), obs=y)


def test_what_is_asked_of_inputs_alone_is_what_the_model_says():
    found = predict(given, alone, X, "y", num_particles=3)
    torch.testing.assert_close(found.mean, 2 * X)
    torch.testing.assert_close(found.sd, torch.full_like(X, 0.5))


def test_a_latent_site_is_that_of_the_posterior_and_not_of_the_guide():
    found, exact = predict(LINEAR, wide, X, "z", num_particles=2000), LINEAR.posterior(X)
    z = (found.mean - exact.loc) / found.mean_se
    assert 0.5 < z.square().mean() < 1.7 and z.abs().max() < 4.5
    assert (found.sd / exact.stddev - 1).abs().max() < 0.15


def test_data_anew_have_the_likelihoods_noise_and_the_posteriors():
    found, exact = predict(LINEAR, posterior, X, "x", num_particles=500, num_draws=300), LINEAR.posterior(X)
    mean, cov = exact.loc @ WEIGHT.T + LOC, WEIGHT @ exact.covariance_matrix @ WEIGHT.T
    sd = (cov.diagonal(dim1=-2, dim2=-1) + 0.25).sqrt()
    assert ((found.mean - mean) / found.mean_se).abs().max() < 4.5 and (found.sd / sd - 1).abs().max() < 0.1
    assert (found.draws.std(0) / sd - 1).abs().max() < 0.2


def labelled(x, y=None, n=1):
    """y follows from z, and says no more of it where it is not given."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(z.sum(-1), 0.5), obs=y)
        pyro.sample("x", dist.Normal(z @ WEIGHT.T + LOC, 0.5).to_event(1), obs=x)


def of_both(x, y=None, n=1):
    return posterior(x)


def test_a_site_below_the_latents_is_known_by_its_distribution():
    """y ~ N(z1 + z2, 0.5): under the exact posterior of z its moments are those of a Gaussian."""
    found, exact = predict(labelled, of_both, (X, None), "y", num_particles=400), LINEAR.posterior(X)
    ones, cov = torch.ones(2), exact.covariance_matrix
    assert ((found.mean - exact.loc.sum(-1)) / found.mean_se).abs().max() < 4.5
    torch.testing.assert_close(found.mean_se, (ones @ cov @ ones / 400).sqrt(), rtol=0.2, atol=0)  # not that of draws
    assert (found.sd / (ones @ cov @ ones + 0.25).sqrt() - 1).abs().max() < 0.1


class Anything(type(constraints.real)):
    def check(self, value):
        return torch.ones_like(value, dtype=torch.bool)


class Holes(dist.Normal):
    """Real numbers, of which those that are NaN count nothing."""

    support = Anything()

    def log_prob(self, value):
        return torch.where(value.isnan(), 0.0, super().log_prob(value.nan_to_num(0.0)))


def incomplete(x=None, n=1):
    with pyro.plate("data", n if x is None else len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", Holes(z @ WEIGHT.T + LOC, torch.tensor(0.5)).to_event(1), obs=x)


MISSING = torch.rand(X.shape, generator=torch.Generator().manual_seed(1)) < 0.4
GAPS = X.masked_fill(MISSING, torch.nan)


def conditional(row, missing):
    """Mean and covariance of x_m given x_o under N(LOC, W W' + I / 4)."""
    cov = WEIGHT @ WEIGHT.T + 0.25 * torch.eye(4)
    there = ~missing
    gain = torch.linalg.solve(cov[there][:, there], cov[there][:, missing]).T
    return LOC[missing] + gain @ (row - LOC)[there], cov[missing][:, missing] - gain @ cov[there][:, missing]


def test_missing_entries_have_their_exact_moments():
    found = impute(incomplete, wide, GAPS, num_particles=4000, num_draws=200)
    assert torch.equal(found.mean[~MISSING], X[~MISSING]) and (found.draws[:, ~MISSING] == X[~MISSING]).all()
    assert (found.sd[~MISSING] == 0).all() and not found.mean.isnan().any()
    for i in MISSING.any(1).nonzero().flatten():
        mean, cov = conditional(X[i], MISSING[i])
        assert ((found.mean[i][MISSING[i]] - mean) / found.mean_se[i][MISSING[i]]).abs().max() < 4.5
        assert (found.sd[i][MISSING[i]] / cov.diagonal().sqrt() - 1).abs().max() < 0.15
        if MISSING[i].sum() > 1:  # draws are joint
            drawn = torch.cov(found.draws[:, i][:, MISSING[i]].T)
            assert (drawn - cov).abs().max() < 0.5 * cov.diagonal().max()


def by_column(x, n=1):
    """The same by Pyro's obs_mask, a latent site for what is missing of each column."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        for d, loc in enumerate((z @ WEIGHT.T + LOC).unbind(-1)):
            there = ~x[:, d].isnan()
            pyro.sample(f"x{d}", dist.Normal(loc, 0.5), obs=x[:, d].nan_to_num(), obs_mask=there)


def test_missing_entries_that_are_sites_of_their_own_have_their_exact_moments():
    rows = slice(0, 6)
    found = impute(by_column, wide, GAPS[rows], num_particles=1000)
    assert torch.equal(found.mean[~MISSING[rows]], X[rows][~MISSING[rows]])
    for i in MISSING[rows].any(1).nonzero().flatten():
        mean, cov = conditional(X[i], MISSING[i])
        assert ((found.mean[i][MISSING[i]] - mean) / found.mean_se[i][MISSING[i]]).abs().max() < 4.5
        assert (found.sd[i][MISSING[i]] / cov.diagonal().sqrt() - 1).abs().max() < 0.2


def test_log_px_of_incomplete_data_is_that_of_what_is_there():
    found = log_px(incomplete, wide, GAPS.double().numpy(), num_particles=4000)
    assert isinstance(found.log_px, np.ndarray)
    cov = WEIGHT @ WEIGHT.T + 0.25 * torch.eye(4)
    for i, there in enumerate(~MISSING):
        if there.any():
            exact = dist.MultivariateNormal(LOC[there], cov[there][:, there]).log_prob(X[i][there]).item()
            assert abs(found.log_px[i] - exact) < 4.5 * found.log_px_se[i]


def test_missing_entries_in_pieces_and_tables(monkeypatch):
    monkeypatch.setattr(weighed, "MOST_KEPT", 100 * 4 * 7)
    table = Table(GAPS.numpy(), TABLE.index, TABLE.columns)
    found = impute(incomplete, wide, table, num_particles=50)
    assert found.mean.columns == TABLE.columns and found.mean.index == TABLE.index
    assert found.draws.shape == (1, 23, 4) and found.ess.columns == ["ess"]
    np.testing.assert_array_equal(found.mean.numbers[~MISSING.numpy()], X[~MISSING].numpy())


def bare(x, n=1):
    """A batch in no plate."""
    z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(z @ WEIGHT.T, 1.0).to_event(1), obs=x)


LATE = X.index_fill(0, torch.tensor([22]), torch.nan)


def encoded(x, n=1):
    """A guide that can make nothing of NaN."""
    with pyro.plate("data", len(x)):
        return pyro.sample("z", dist.Normal(x[:, :2], 1.0).to_event(1))


def of_z(model, guide, x):
    return predict(model, guide, x, "z")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: log_px(bare, pyro.poutine.block(bare, hide=["x"]), X), "in no plate; write with pyro.plate"),
        (lambda: predict(LINEAR, posterior, X, "w"), "site must be one of 'z', 'x', got 'w'"),
        (lambda: impute(LINEAR, wide, GAPS), "remove NaN"),
        *((lambda call=call: call(LINEAR, encoded, LATE), "remove NaN.*Missing") for call in (impute, log_px, of_z)),
        (lambda: log_px(LINEAR, wide, X[:, :2]), "make the likelihood's width that of the data"),
    ],
)
def test_what_cannot_be_is_refused_in_words(call, said):
    with pytest.raises(ValueError, match=said):
        call()
