"""Decoders held against data whose residuals, probabilities and power are known in closed form."""

from __future__ import annotations

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from oracles import GOLDEN_1, Gaussian, LinearGaussian, assert_close, ppca_optimum
from torch import nn

from dlvm.distributions import Bernoulli
from dlvm.distributions.observation_noise import ConstantScaleNormal, FixedScale, LearnedScale
from dlvm.evidence.diagnostics.calibrate_scale import calibrate_scale
from dlvm.evidence.diagnostics.decoder import decoder_report
from dlvm.evidence.simulate import simulate
from dlvm.guides import FullRank, latents
from dlvm.inference import ELBO, fit
from dlvm.models import PPCA, VAE
from dlvm.nets import MLP

COV = torch.tensor([[0.15, 0.05], [0.05, 0.2]], dtype=torch.float64)
LOGITS = torch.tensor([[2.0, -1.0, 0.3], [-3.0, 1.0, -0.2]], dtype=torch.float64)


def gaussian(cov=COV):
    """q(z | x) = N(A (x - mu), cov), not the posterior."""

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(0.3 * (x - GOLDEN_1.mu) @ GOLDEN_1.weight, cov))

    return guide


def exact(x):
    """The posterior of golden model 1."""
    posterior = GOLDEN_1.posterior(x)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.MultivariateNormal(posterior.loc, posterior.cov))


def residuals(x, cov=COV):
    """E_q (x - W z - mu)^2, shape of x."""
    error = x - GOLDEN_1.mu - 0.3 * (x - GOLDEN_1.mu) @ GOLDEN_1.weight @ GOLDEN_1.weight.T
    return error.square() + (GOLDEN_1.weight @ cov @ GOLDEN_1.weight.T).diagonal()


@pytest.fixture
def data(float64):
    return simulate(PPCA(GOLDEN_1.weight, GOLDEN_1.mu, 0.5), 400).args[0]


def two_faced(logits):
    """z ~ Bernoulli(0.4), three pixels with the logits of their row."""

    def model(x=None, n=1):
        with pyro.plate("data", n if x is None else len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.4))
            return pyro.sample("x", dist.Bernoulli(logits=logits[z.long()]).to_event(1), obs=x)

    return model


def two_faced_posterior(x):
    ratio = dist.Bernoulli(logits=LOGITS[:, None]).log_prob(x).sum(-1)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Bernoulli(logits=math.log(0.4 / 0.6) + ratio[1] - ratio[0]))


def test_the_best_scale_is_the_closed_form_of_the_residuals(data):
    """With a guide of hardly any width, residuals are those of its means; with a wide one, their expectation."""
    model = PPCA(GOLDEN_1.weight, GOLDEN_1.mu, 2.0)
    narrow = decoder_report(model, gaussian(1e-16 * torch.eye(2)), data, rows=37)
    expected = residuals(data, torch.zeros(2, 2))
    assert_close(narrow.best_scale_per_dim, expected.mean(0).sqrt(), 1e-7)
    assert_close([narrow.best_scale, narrow.scale], [expected.mean().sqrt(), 2.0], 1e-7)
    assert_close(narrow.score_variance.value, expected.mean() / 4, 1e-7)
    assert_close(narrow.mse.se, expected.mean(1).std() / 20, 1e-7)
    wide = decoder_report(model, gaussian(), data, num_particles=200)
    assert_close(wide.best_scale_per_dim.square() / residuals(data).mean(0), torch.ones(4), 0.01)


def test_the_gain_is_the_difference_of_exact_bounds(data):
    """ELBO at s2 and at s2* = E_q r^2 by the closed form; 80,000 draws leave 0.01 nats of error."""
    q = Gaussian(0.3 * (data - GOLDEN_1.mu) @ GOLDEN_1.weight, COV)
    best = residuals(data).mean()
    at = {s2: GOLDEN_1._replace(s2=torch.as_tensor(s2)).elbo(data, q).mean() for s2 in (4.0, best)}
    found = decoder_report(PPCA(GOLDEN_1.weight, GOLDEN_1.mu, 2.0), gaussian(), data, num_particles=200)
    assert_close(found.gain.value, at[best] - at[4.0], 0.01)
    assert found.verdict.startswith("the scale is too large") and "calibrate_scale" in found.next_step
    assert_close(found.gain.value, 2 * (math.log(4 / found.mse.value) + found.mse.value / 4 - 1), 1e-9)
    ratios = found.best_scale_per_dim.square() / found.mse.value
    assert_close(found.gain_per_dim.value, found.gain.value - 0.5 * ratios.log().sum(), 1e-9)


@pytest.mark.parametrize("scale, dim", [(2.0, 1), (0.1, 1), (2.0, 4)])
def test_calibrating_gains_what_was_predicted(data, scale, dim):
    likelihood = ConstantScaleNormal(nn.Linear(2, 4), LearnedScale(scale, dim)).double()
    model = VAE(2, likelihood).double()
    before = decoder_report(model, gaussian(), data)
    change = calibrate_scale(model, gaussian(), data)
    after = decoder_report(model, gaussian(), data)
    predicted = before.gain if dim == 1 else before.gain_per_dim
    assert change.gain == predicted and predicted.value > 0.1
    assert_close(before.distortion.value - after.distortion.value, change.gain.value, 1e-9)
    assert_close(change.before, torch.full((dim,), scale), 1e-12)
    assert_close(likelihood.scale(), change.after, 1e-12)
    assert_close((after.gain if dim == 1 else after.gain_per_dim).value, 0.0, 1e-9)
    assert_close(after.score_variance.value, 1.0, 1e-9)
    assert str(change).startswith(f"scale {scale:.4g} -> ")


def test_a_right_decoder_is_told_so_and_a_wrong_scale_which_way(data):
    """(z, x) are drawn jointly, so scores are standard normal, and the means have variance tr WW'."""
    found = decoder_report(PPCA(GOLDEN_1.weight, GOLDEN_1.mu, 0.5), exact, data)
    assert abs(found.score_variance.value - 1) < 4 * found.score_variance.se < 0.2
    assert found.verdict == "the scale fits the residuals"
    signal = GOLDEN_1.weight.square().sum()
    power = found.sharpness.power
    assert abs(power.value - signal / (signal + 4 * 0.25)) < 4 * power.se < 0.3
    assert (found.sharpness.power_per_dim < 1).all() and found.sharpness.fine is None
    small = decoder_report(PPCA(GOLDEN_1.weight, GOLDEN_1.mu, 0.25), exact, data)
    assert_close(small.score_variance.value, 4 * found.score_variance.value, 1e-9)
    assert small.verdict.startswith("the scale is too small")


def test_power_is_that_of_the_means(data):
    """Means W z of a guide without width, against torch's own variances."""
    found = decoder_report(PPCA(GOLDEN_1.weight, GOLDEN_1.mu, 0.5), gaussian(1e-16 * torch.eye(2)), data, rows=64)
    means = 0.3 * (data - GOLDEN_1.mu) @ GOLDEN_1.weight @ GOLDEN_1.weight.T
    expected = means.var(0, correction=0), data.var(0, correction=0)
    assert_close(found.sharpness.power_per_dim, expected[0] / expected[1], 1e-7)
    assert_close(found.sharpness.power.value, expected[0].sum() / expected[1].sum(), 1e-7)


def test_dimensions_of_unequal_noise_ask_for_scales_of_their_own(float64):
    x = torch.randn(500, 4) * torch.tensor([0.1, 1.0, 1.0, 2.0])
    found = decoder_report(PPCA(torch.zeros(4, 2), torch.zeros(4), x.square().mean().sqrt()), gaussian(), x)
    assert_close(found.gain.value, 0.0, 1e-9)
    assert found.verdict == "the scale fits on the whole, and not each dimension" and found.gain_per_dim.value > 1
    assert "one scale per dimension" in found.next_step


def test_probabilities_of_the_true_model_are_calibrated(float64):
    model = two_faced(LOGITS)
    x = simulate(model, 3000).args[0]
    found = decoder_report(model, two_faced_posterior, x)
    entropy = dist.Bernoulli(logits=LOGITS).entropy().sum(-1)
    assert abs(found.entropy.value - (0.6 * entropy[0] + 0.4 * entropy[1])) < 4 * found.entropy.se
    assert abs(found.overconfidence.value) < 4 * found.overconfidence.se < 0.2
    assert found.bins.error.value < 4 * found.bins.error.se < 0.04
    assert found.verdict == "as sure of itself as it may be"
    assert_close(found.unsure.value, 0.6 + 0.4 * 2 / 3, 0.02)
    filled = ~found.bins.probability.isnan()
    assert filled.nonzero().flatten().tolist() == sorted({int(p) for p in (LOGITS.sigmoid() * 10).flatten()})
    differences = [d for d, full in zip(found.bins.differences, filled.tolist(), strict=True) if full]
    assert all(abs(d.value) < 4 * d.se for d in differences)


@pytest.mark.parametrize("factor, verdict", [(3.0, "overconfident"), (0.3, "underconfident")])
def test_distortion_above_entropy_is_overconfidence(float64, factor, verdict):
    """E over true pixels of -log r(x) - H(r), r the predicted and p the true probability."""
    x = simulate(two_faced(LOGITS), 3000).args[0]
    found = decoder_report(two_faced(factor * LOGITS), two_faced_posterior, x)
    r, p = dist.Bernoulli(logits=factor * LOGITS), LOGITS.sigmoid()
    expected = -(p * r.log_prob(torch.ones(())) + (1 - p) * r.log_prob(torch.zeros(()))) - r.entropy()
    expected = 0.6 * expected[0].sum() + 0.4 * expected[1].sum()
    assert abs(found.overconfidence.value - expected) < 4 * found.overconfidence.se
    assert found.verdict.startswith(verdict) and found.bins.error.value > 5 * found.bins.error.se
    assert "calibration error" in str(found)


def test_the_calibration_error_of_a_constant_prediction(float64):
    """All pixels predicted 0.25, three of four are 1: an error of a half in the third bin."""
    likelihood = Bernoulli(nn.Linear(1, 4))
    with torch.no_grad():
        likelihood.net.weight.zero_()
        likelihood.net.bias.fill_(math.log(1 / 3))
    x = torch.tensor([[1.0, 1.0, 1.0, 0.0]]).repeat(6, 1)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))

    found = decoder_report(VAE(1, likelihood), guide, [x[:4], x[4:]], num_particles=1)
    assert_close([found.bins.error.value, found.bins.error.se], [0.5, 0.0])
    assert_close(found.bins.probability[2], 0.25)
    assert_close(found.bins.frequency[2], 0.75)
    assert str(found.bins) == "0.25: 0.75" and found.unsure.value == 1.0
    assert_close(found.distortion.value, -3 * math.log(0.25) - math.log(0.75))


@pytest.mark.parametrize("shape", [(4, 6), (2, 4, 3)])
def test_fine_power_sees_a_checkerboard_and_no_gradient(float64, shape):
    """Predictions with half of the data's checkerboard have a quarter of its power, whatever smooth parts do."""
    rows, columns = torch.meshgrid(torch.arange(shape[-2]), torch.arange(shape[-1]), indexing="ij")
    board = (1.0 - 2.0 * ((rows + columns) % 2)).expand(shape).flatten()
    wave = torch.cos(2 * math.pi * rows / 4).expand(shape).flatten() if len(shape) == 2 else torch.ones(24)
    strength = torch.tensor([1.0, 2.0, 3.0])[:, None]
    fine = _fine_share(strength * board + 5 * wave, 0.5 * board - wave, shape)
    assert fine is not None
    if shape[-1] % 2 == 0:
        assert_close(fine.value, 0.25 * 3 / 14, 1e-9)
    assert 0 < fine.value < 0.25 and fine.se > 0


def _fine_share(x, mean, shape):
    def model(x=None, n=1):
        with pyro.plate("data", n if x is None else len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))
            return pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    found = decoder_report(model, guide, x, image_shape=shape)
    assert "of its finest detail" in str(found) and found.sharpness.power.value < 1e-12
    return found.sharpness.fine


def test_what_cannot_be_diagnosed_says_why(data):
    model = PPCA(GOLDEN_1.weight, GOLDEN_1.mu, 0.5)
    for shape in ((2, 3), (4,)):
        with pytest.raises(ValueError, match=r"image_shape must be \(height, width\).*product 4, got"):
            decoder_report(model, exact, data, image_shape=shape)
    with pytest.raises(ValueError, match=r"site must be one of the observed sites \['x'\], got 'y'"):
        decoder_report(model, exact, data, site="y")
    with pytest.raises(ValueError, match="data hold no batch"):
        decoder_report(model, exact, [])

    def heavy(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Laplace(z @ GOLDEN_1.weight.T, 1.0).to_event(1), obs=x)

    with pytest.raises(TypeError, match="observed site 'x' has a Laplace likelihood; .*Normal or Bernoulli"):
        decoder_report(heavy, exact, data)


def test_a_scale_that_cannot_be_set_says_why(data):
    class Half(LearnedScale):
        def forward(self):
            return (0.5 * self.log_scale).exp()

    fixed = VAE(2, ConstantScaleNormal(nn.Linear(2, 4), nn.Sequential())).double()
    with pytest.raises(ValueError, match="0 parts with a tensor 'log_scale', expected one: .*FixedScale"):
        calibrate_scale(fixed, exact, data)
    halved = VAE(2, ConstantScaleNormal(nn.Linear(2, 4), Half(3.0))).double()
    with pytest.raises(ValueError, match="stands for a scale of 3, shape .* where the likelihood has 1.732"):
        calibrate_scale(halved, exact, data)
    constant = VAE(2, ConstantScaleNormal(nn.Linear(2, 4), FixedScale(1.0))).double()
    with pytest.raises(ValueError, match="some residuals are all 0"):
        with torch.no_grad():
            constant.likelihood.net.weight.zero_()
            constant.likelihood.net.bias.fill_(0.5)
        calibrate_scale(constant, exact, torch.full((5, 4), 0.5))
    with pytest.raises(TypeError, match="Bernoullis, which have no scale"):
        bernoulli = VAE(2, Bernoulli(nn.Linear(2, 4))).double()
        bernoulli.register_buffer("log_scale", torch.zeros(()))
        calibrate_scale(bernoulli, exact, (data > 0).double())


@pytest.mark.parametrize("kind", [LearnedScale, FixedScale])
def test_scales_are_positive_constants(kind):
    for value, dim in ((0.0, 1), (-1.0, 1), (math.inf, 1), (math.nan, 1), (1.0, 0)):
        with pytest.raises(ValueError, match="a scale must be positive and finite, and dim at least 1, got"):
            kind(value, dim)
    likelihood = ConstantScaleNormal(nn.Linear(2, 3), kind(0.2, 3))
    z, x = torch.randn(5, 2), torch.randn(5, 3)
    expected = dist.Normal(likelihood.net(z), 0.2).log_prob(x).sum(-1)
    torch.testing.assert_close(likelihood(z).log_prob(x), expected)
    likelihood(z).log_prob(x).sum().backward()
    assert sum(p.grad is not None for p in likelihood.scale.parameters()) == (kind is LearnedScale)


def test_the_scale_of_ppca_can_be_calibrated(data):
    model = PPCA(GOLDEN_1.weight, GOLDEN_1.mu, 3.0)
    change = calibrate_scale(model, exact, data)
    assert_close(model.scale, change.after, 1e-12)
    assert abs(change.after.item() - 0.5) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("scale", [LearnedScale, FixedScale])
def test_a_learned_or_calibrated_scale_reaches_that_of_ppca(float64, scale):
    """The maximum-likelihood noise of Tipping and Bishop, the mean of the discarded eigenvalues."""
    truth = LinearGaussian(torch.randn(6, 2), torch.zeros(6), torch.tensor(0.16))
    x = torch.randn(500, 6) @ torch.linalg.cholesky(truth.marginal.cov).T
    best = ppca_optimum(x, 2)[1].s2.sqrt()
    model = VAE(2, ConstantScaleNormal(nn.Linear(2, 6), scale(1.0))).double()
    guide = FullRank(latents(model, x), MLP(6, 8)).double()
    adam = partial(torch.optim.Adam, lr=0.01)
    batches = [x[i::5] for i in range(5)]
    for _ in fit(model, guide, ELBO(num_particles=4), batches, epochs=150, optimizer=adam, progress=False):
        if scale is FixedScale:
            calibrate_scale(model, guide, x)
    assert_close(model.likelihood.scale()[0], best, 0.01)
