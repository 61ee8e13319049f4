"""The linear beta-VAE: which of its units collapse is known from the spectrum of the data."""

from __future__ import annotations

import pyro
import pytest
import torch
from oracles import assert_close, gauss_hermite
from oracles.forcing import Forced
from pyro import poutine
from torch import nn

from dlvm.guides import Diagonal, latents
from dlvm.inference import ELBO, tempered
from dlvm.models import PPCA
from dlvm.nets import MLP

SLOW = pytest.mark.slow


@pytest.mark.parametrize("beta", [pytest.param(0.5, marks=SLOW), 2.0, pytest.param(6.0, marks=SLOW)])
@pytest.mark.usefixtures("float64")
def test_units_of_the_linear_beta_vae_collapse_where_the_spectrum_says(beta):
    """Unit i is active iff its eigenvalue l_i exceeds beta s2, and then has squared weight l_i - beta s2."""
    values, s2 = torch.tensor([4.0, 1.5, 0.75]), 0.5
    basis = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0)))[0]
    spectrum = torch.cat([values, torch.tensor([0.1, 0.1])])
    xs = torch.cat([basis.T, -basis.T]) * spectrum.sqrt().repeat(2)[:, None] * 5**0.5  # its covariance is exact
    pyro.set_rng_seed(3)
    model = PPCA(0.3 * torch.randn(5, 3), torch.zeros(5), s2**0.5)
    model.log_scale.requires_grad_(False)
    guide = Diagonal(latents(model, xs), MLP(5, activation=nn.Identity))
    nodes, log_weight = gauss_hermite(2, 3)
    rows, weight = xs.repeat_interleave(len(nodes), 0), log_weight.exp().repeat(len(xs)) / len(xs)
    noise = nodes.repeat(len(xs), 1)
    programs = [poutine.scale(program, scale=weight) for program in (model, Forced({}, {"z": noise})(guide))]
    objective = tempered(ELBO(analytic_kl=True), beta)
    parameters = [p for p in (*model.parameters(), *guide.parameters()) if p.requires_grad]
    # by gradients alone, without a line search: the loss itself is not that of beta
    optimizer = torch.optim.LBFGS(parameters, lr=0.5, max_iter=400, tolerance_grad=1e-6, tolerance_change=0)

    def loss():
        optimizer.zero_grad()
        found = objective.differentiable_loss(*programs, rows)
        found.backward()
        return found

    optimizer.step(loss)
    found = torch.linalg.svdvals(model.weight.detach()).square()
    assert_close(found, (values - beta * s2).clamp(min=0), 0.001)
