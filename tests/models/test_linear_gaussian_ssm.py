"""The linear-Gaussian state space model against the joint Gaussian of everything, Kalman's filter, and its own EM."""

from __future__ import annotations

from functools import partial

import pyro
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.distributions.kl import kl_divergence

from dlvm.distributions import GaussianChain
from dlvm.distributions.sequences.lengths import steps_within
from dlvm.guides import ExactPosterior
from dlvm.inference import IWAE, SVI, fit_em, impute, log_weights
from dlvm.models import LinearGaussianSSM

STEPS, X_DIM, LENGTHS = 4, 3, torch.tensor([4, 2, 3, 1, 4])


def moving(seed: int = 0) -> LinearGaussianSSM:
    torch.manual_seed(seed)
    model = LinearGaussianSSM(2, X_DIM).double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model


def data(seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(5, STEPS, X_DIM).double()


def joint(model: LinearGaussianSSM, steps: int) -> tuple[MultivariateNormal, MultivariateNormal, Tensor]:
    """p(z), p(x), and Cov(x, z), of all numbers, by the noise that they are made of."""
    rows, means = [], []
    for t in range(steps):
        row = torch.zeros(2, 2 * steps).double()
        if t:
            row, mean = model.transition @ rows[-1], model.transition @ means[-1]
        else:
            mean = model.first_loc
        row = row.clone()
        row[:, 2 * t : 2 * t + 2] += ((model.log_drift if t else model.first_log_scale).exp()).diag()
        rows.append(row), means.append(mean)
    z_of_noise, z_mean = torch.cat(rows), torch.cat(means)
    weight = torch.block_diag(*[model.weight] * steps)
    z_covariance = z_of_noise @ z_of_noise.T
    noise = (2 * model.log_scale).exp().repeat(steps).diag()
    x = MultivariateNormal(weight @ z_mean + model.loc.repeat(steps), weight @ z_covariance @ weight.T + noise)
    return MultivariateNormal(z_mean, z_covariance), x, weight @ z_covariance


@torch.no_grad()
def test_prior_density_and_posterior_are_those_of_the_joint_gaussian():
    model, x = moving(), data()
    p_z, p_x, across = joint(model, STEPS)
    z = torch.randn(6, STEPS, 2).double()
    torch.testing.assert_close(model.prior(STEPS).log_prob(z), p_z.log_prob(z.flatten(1)))
    torch.testing.assert_close(model.log_px(x), p_x.log_prob(x.flatten(1)))
    gain = torch.linalg.solve(p_x.covariance_matrix, across).T
    mean = p_z.mean + (x.flatten(1) - p_x.mean) @ gain.T
    posterior = MultivariateNormal(mean, p_z.covariance_matrix - gain @ across)
    found = model.posterior(x)
    torch.testing.assert_close(found.mean.flatten(1), posterior.mean)
    torch.testing.assert_close(found.log_prob(z[:5]), posterior.log_prob(z[:5].flatten(1)))


@torch.no_grad()
def test_the_filter_multiplies_to_the_density_and_ends_where_the_smoother_does():
    model, x = moving(), data()
    means, covariances, log_p = model.filtered(x, LENGTHS)
    torch.testing.assert_close(log_p.sum(1), model.log_px(x, LENGTHS))
    posterior = model.posterior(x, LENGTHS)
    for i, length in enumerate(LENGTHS):
        torch.testing.assert_close(means[i, length - 1], posterior.mean[i, length - 1])
        torch.testing.assert_close(covariances[i, length - 1], posterior.covariances[0][i, length - 1])


@torch.no_grad()
def test_a_ragged_batch_is_each_sequence_alone():
    model, x = moving(), data()
    alone = torch.stack([model.log_px(x[i : i + 1, :length])[0] for i, length in enumerate(LENGTHS)])
    torch.testing.assert_close(model.log_px(x, LENGTHS), alone)
    behind = torch.arange(STEPS)[:, None] >= LENGTHS[:, None, None]
    torch.testing.assert_close(model.log_px(torch.where(behind, 1e3, x), LENGTHS), alone)
    torch.testing.assert_close(log_weights(model, model.guide, x, LENGTHS, num_particles=2), alone.expand(2, -1))


@torch.no_grad()
def test_numbers_that_were_not_seen_are_summed_out():
    model, x = moving(), data()
    p_x = joint(model, STEPS)[1]
    seen = torch.ones(STEPS * X_DIM, dtype=torch.bool)
    seen[[1, 4, 6, 7, 8]] = False  # parts of two steps, and a whole one
    holed = torch.where(seen.view(STEPS, X_DIM), x, torch.nan)
    left = MultivariateNormal(p_x.mean[seen], p_x.covariance_matrix[seen][:, seen])
    torch.testing.assert_close(model.log_px(holed), left.log_prob(x.flatten(1)[:, seen]))
    torch.testing.assert_close(model.filtered(holed)[2].sum(1), model.log_px(holed))


@pytest.mark.slow
def test_em_never_falls_and_ends_above_the_truth_with_holes_and_lengths():
    truth = moving(2)
    pyro.set_rng_seed(0)
    lengths = torch.randint(1, 9, (300,))
    x = truth(n=300, steps=8, lengths=lengths).detach()
    x = torch.where(torch.rand_like(x) < 0.1, torch.nan, x)
    model = moving(3)
    steps = list(fit_em(model, [(x, lengths)], iterations=400, tolerance=1e-9))
    assert all(step.rise > -1e-9 for step in steps[1:])
    assert steps[-1].log_px > truth.log_px(x, lengths).mean().item()
    slopes = torch.autograd.grad(model.log_px(x, lengths).mean(), [*model.parameters()])
    assert max(slope.abs().max() for slope in slopes) < 0.01  # EM nears the maximum ever more slowly


def test_a_step_of_em_goes_to_the_maximum_of_the_expected_log_joint():
    model, x = moving(), data()
    q = moving().posterior(x, LENGTHS)
    q = GaussianChain(q.linear.detach(), q.precision.detach(), q.coupling.detach(), LENGTHS)
    model.maximise(model.expected_statistics(x, LENGTHS)[1])
    likelihood = torch.distributions.Normal(q.mean @ model.weight.T + model.loc, model.log_scale.exp())
    spread = torch.einsum("di,ntij,dj->ntd", model.weight, q.covariances[0], model.weight)
    of_step = likelihood.log_prob(x) - 0.5 * spread / (2 * model.log_scale).exp()
    of_step = (of_step * steps_within(LENGTHS, STEPS).unsqueeze(-1)).sum()
    expected = of_step - kl_divergence(q, model.prior(STEPS, LENGTHS)).sum()
    slopes = torch.autograd.grad(expected, [*model.parameters()])
    assert max(slope.abs().max() for slope in slopes) < 1e-8


def test_captured_steps_are_the_eager_ones_and_the_exact_guide_has_no_gap():
    left = []
    for engine in ("eager", "captured"):
        model, x = moving(), data()
        svi = SVI(model, model.guide, partial(torch.optim.Adam, lr=1e-2), IWAE(3), engine=engine)
        pyro.set_rng_seed(2)
        losses = [svi.step(x, lengths) for lengths in (LENGTHS, LENGTHS.flip(0), LENGTHS.clamp_max(3))]
        left.append((losses, [p.detach().clone() for p in model.parameters()], svi.running))
    assert left[1][2] == "captured" and left[0][0] == pytest.approx(left[1][0], rel=1e-10)
    assert left[0][0][0] == pytest.approx(-moving().log_px(data(), LENGTHS).sum().item(), rel=1e-9)
    torch.testing.assert_close(left[0][1], left[1][1])


def test_a_model_that_explains_everything_is_refused():
    model = LinearGaussianSSM(3, 1).double()
    with pytest.raises(ValueError, match="x must have sequences of two steps and more"):
        list(fit_em(model, [(torch.randn(4, 1, 1).double(),)], iterations=2))


@torch.no_grad()
def test_what_is_missing_is_imputed_as_the_joint_gaussian_says(monkeypatch):
    model, x = moving(), data()
    x[0, 1:3] = x[1, 0, 2] = x[2, 2, :2] = x[4, -1] = torch.nan
    monkeypatch.setattr("dlvm.inference.use.impute.EXACT_AT_ONCE", 30)  # two sequences at once
    found = impute(model, ExactPosterior(model), (x, LENGTHS), num_draws=3000)
    assert found.mean_se.max() == 0 and found.khat.max() == -torch.inf
    for row, length in enumerate(LENGTHS.tolist()):
        p_x, flat = joint(model, length)[1], x[row, :length].flatten()
        gone, there = flat.isnan(), ~flat.isnan()
        across = p_x.covariance_matrix[gone][:, there]
        gain = torch.linalg.solve(p_x.covariance_matrix[there][:, there], across, left=False) if there.any() else across
        mean = p_x.mean[gone] + gain @ (flat - p_x.mean)[there]
        covariance = p_x.covariance_matrix[gone][:, gone] - gain @ across.T
        torch.testing.assert_close(found.mean[row, :length].flatten()[gone], mean)
        torch.testing.assert_close(found.sd[row, :length].flatten()[gone], covariance.diagonal().sqrt())
        assert found.mean[row, :length].flatten()[there].equal(flat[there]) and not found.sd[row][~x[row].isnan()].any()
        draws = found.draws[:, row, :length].flatten(1)
        assert draws[:, there].equal(flat[there].expand(3000, -1))
        if gone.sum() > 1:  # jointly, and not each entry by itself
            torch.testing.assert_close(draws[:, gone].T.cov(), covariance, rtol=0.15, atol=0.1)


@torch.no_grad()
def test_exact_imputation_is_what_importance_sampling_finds():
    model, x = moving(), data()
    x[:, 1] = torch.nan
    exact = impute(model, ExactPosterior(model), (x, LENGTHS))
    weighed = impute(lambda x, lengths: model(x, lengths), ExactPosterior(model), (x, LENGTHS), num_particles=2000)
    counts = LENGTHS > 1
    away = ((weighed.mean - exact.mean) / weighed.mean_se)[counts, 1]
    assert away.abs().max() < 4 and away.square().mean() > 0.1
    torch.testing.assert_close(weighed.sd[counts, 1], exact.sd[counts, 1], rtol=0.1, atol=0)
