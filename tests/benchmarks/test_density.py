"""The density written by hand is the one that the project has."""

from __future__ import annotations

import torch

from benchmarks.cases import density


def test_the_masked_autoencoder_by_hand_has_the_same_density_and_steps():
    x = (torch.rand(9, 12) < 0.4).float()
    model = density.model_of(12, 20)
    torch.testing.assert_close(density.twin_of(model, 12, 20)(x), model.likelihood().log_prob(x))
    losses = []
    for make in (density.step, density.step_by_hand):
        torch.manual_seed(3)
        call = make(12, 20, x)
        losses.append([call() for _ in range(4)])
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-4)
    assert losses[0][-1] < losses[0][0]
