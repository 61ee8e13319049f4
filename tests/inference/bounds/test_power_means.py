"""Formulas of single bounds against the general way, which takes copies of the weights."""

from __future__ import annotations

import pytest
import torch
from oracles import assert_close

from dlvm.inference import CIWAE, CUBO, ELBO, IWAE, MIWAE, TVO, Renyi, VRMax
from dlvm.inference.bounds.derivatives import curvatures, left_out
from dlvm.inference.bounds.power_means import log_sum_of_others

pytestmark = pytest.mark.usefixtures("float64")
BOUNDS = [
    ELBO(6), IWAE(6), Renyi(0.5, 6), Renyi(-2.0, 6), Renyi(1.0, 6), MIWAE(2, 3), MIWAE(3, 2), MIWAE(6, 1),
    CIWAE(0.3, 6), CIWAE(1.0, 6), TVO(6), TVO(6, 1), CUBO(2.5, 6),
]  # fmt: skip


@pytest.mark.parametrize("objective", BOUNDS, ids=repr)
def test_curvatures_are_second_derivatives(objective):
    log_w = 2 * torch.randn(6, 40)
    assert_close(objective.bound.curvatures(log_w), curvatures(objective.bound, log_w), 1e-10)


@pytest.mark.parametrize("objective", [*BOUNDS, VRMax(6)], ids=repr)
def test_leaving_one_out_replaces_it_by_the_mean_of_the_others(objective):
    log_w = 2 * torch.randn(6, 40)
    assert_close(objective.bound.left_out(log_w), left_out(objective.bound, log_w), 1e-10)
    changed = log_w.clone()
    changed[2] = log_w[[0, 1, 3, 4, 5]].mean(0)
    assert_close(objective.bound.left_out(log_w)[2], objective.bound(changed), 1e-10)


def test_sums_of_others_do_not_cancel():
    """One weight e^300 times the rest: the direct difference would leave nothing."""
    log_w = torch.tensor([[300.0, 0.0, -5.0], [1.0, 0.0, 700.0], [0.5, 0.0, 700.0]])
    wanted = torch.stack([log_w[[j for j in range(3) if j != k]].logsumexp(0) for k in range(3)])
    assert_close(log_sum_of_others(log_w), wanted, 1e-12)
    assert_close(log_sum_of_others(log_w.float()), wanted, 1e-4)


@pytest.mark.parametrize("objective", [IWAE(1000), Renyi(0.5, 1000), MIWAE(10, 100), TVO(1000)], ids=repr)
def test_a_thousand_particles_take_no_thousand_copies(objective):
    """A million numbers per datum would not fit for the batch of 2000."""
    log_w = torch.randn(1000, 2000)
    shares = objective.bound.curvatures(log_w)
    assert shares.shape == log_w.shape and shares.isfinite().all()
