"""Particle filters against Kalman's: unbiased with every scheme, near its means, and blind to padding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dlvm.distributions.sequences.steps import Steps, chain_steps
from dlvm.inference import Resampling
from dlvm.inference.particles.filtering import Filtered, run_filter
from dlvm.models import LinearGaussianSSM

LENGTHS = torch.tensor([6, 2, 3, 1, 5])
SCHEMES = [
    (Resampling("multinomial", 1.0), False),
    (Resampling("systematic", 1.0), True),
    (Resampling("stratified"), False),
    (Resampling(), True),
]


def moving() -> LinearGaussianSSM:
    torch.manual_seed(0)
    return LinearGaussianSSM(2, 3).double().requires_grad_(False)


def data() -> Tensor:
    """Sequences with a step and a number that were not seen, and anything behind the ends."""
    torch.manual_seed(1)
    x = torch.randn(5, 6, 3).double()
    x[0, 1], x[4, 2, 1], x[3, 2] = torch.nan, torch.nan, 1e9
    return x


def drifting(model: LinearGaussianSSM, x: Tensor, lengths: Tensor) -> Steps:
    """A guide that is no posterior of anything here: that of data half as large."""
    return chain_steps(model.posterior(0.5 * x, lengths))


@pytest.mark.parametrize(("resampling", "guided"), SCHEMES)
def test_the_estimate_of_the_density_is_unbiased(resampling, guided):
    model, runs = moving(), 400
    x, lengths = data().repeat(runs, 1, 1), LENGTHS.repeat(runs)
    guide = drifting(model, x, lengths) if guided else None
    found = run_filter(model.stepwise(x, lengths), guide, 10, resampling)
    ratio = (found.log_p.sum(1) - model.log_px(x, lengths)).exp().view(runs, 5)
    t = (ratio.mean(0) - 1) / (ratio.std(0) / runs**0.5)
    assert t.abs().max() < 3.5, t
    torch.testing.assert_close(found.log_w.logsumexp(0) - torch.tensor(10.0).log(), found.log_p.sum(1))
    resampled = found.resampled.view(runs, 5, 6)
    assert resampled[:, 0].any() and not resampled[:, 3].any()


def test_filtered_means_and_densities_of_steps_are_near_kalmans():
    model, x = moving(), data()
    found = run_filter(model.stepwise(x, LENGTHS), None, 5000, Resampling())
    means, covariances, log_p = model.filtered(x, LENGTHS)
    within = torch.arange(6) < LENGTHS[:, None]
    error = (covariances.diagonal(dim1=-2, dim2=-1) / found.ess.unsqueeze(-1)).sqrt()
    assert ((found.mean - means) / error)[within].abs().max() < 5
    torch.testing.assert_close(found.log_p, log_p, atol=0.15, rtol=0)
    assert (found.log_p[~within] == 0).all()


def test_what_stands_behind_a_sequence_changes_nothing():
    model, x = moving(), data()

    def run(x: Tensor, lengths: Tensor | None) -> Filtered:
        torch.manual_seed(2)
        return run_filter(model.stepwise(x, lengths), None, 7, Resampling(below=1.0))

    first, three = x[:, :3].nan_to_num(), torch.full((5,), 3)
    behind = torch.cat([first, torch.full_like(first, torch.nan)], 1)
    torch.testing.assert_close(run(behind, three).log_w, run(first, None).log_w)
    torch.testing.assert_close(run(behind, three).log_p[:, :3], run(first, None).log_p)


def test_the_exact_posterior_without_resampling_is_exact():
    model, x = moving(), data()
    guide = chain_steps(model.posterior(x, LENGTHS))
    found = run_filter(model.stepwise(x, LENGTHS), guide, 3, Resampling(below=0.0))
    torch.testing.assert_close(found.log_w, model.log_px(x, LENGTHS).expand(3, -1))


def test_particles_are_copied_as_often_as_they_weigh():
    torch.manual_seed(0)
    log_w = torch.randn(6, 1).double().expand(6, 4000)
    for scheme in ("multinomial", "stratified", "systematic"):
        ancestors = Resampling(scheme, 1.0).ancestors(log_w)
        counts = torch.stack([(ancestors == k).sum(0) for k in range(6)]).double()
        wanted = 6 * log_w[:, 0].softmax(0)
        assert ((counts.mean(1) - wanted) / (counts.std(1) / 4000**0.5)).abs().max() < 4, scheme
        if scheme == "systematic":
            assert (counts - wanted[:, None]).abs().max() < 1


def test_particles_without_weight_are_never_copied_and_those_of_none_stay():
    log_w = torch.full((3, 2), -torch.inf)
    log_w[1, 0] = 0.0
    for scheme in ("multinomial", "stratified", "systematic"):
        ancestors = Resampling(scheme, 1.0).ancestors(log_w)
        assert ancestors[:, 0].tolist() == [1, 1, 1]
        assert Resampling(scheme, 0.5).wanted(log_w).tolist() == [True, False]
