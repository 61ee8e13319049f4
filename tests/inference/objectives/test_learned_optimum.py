"""Models trained together with their guides, against the maximum likelihood; guides trained the way users do."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from oracles import GOLDEN_1, X_1, assert_close, ppca_optimum
from pyro.infer import TraceMeanField_ELBO
from torch import nn

from dlvm.guides import IAF, Diagonal, FullRank, latents
from dlvm.inference import IWAE, evaluate, fit
from dlvm.models import PPCA
from dlvm.nets import MLP

pytestmark = pytest.mark.usefixtures("float64")
Falling = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.001 ** (1 / 40))


def spectral_data(*spectrum, n: int = 200):
    """Data whose covariance has exactly these eigenvalues, in a random basis."""
    x = torch.randn(n, len(spectrum))
    rotation = torch.linalg.qr(torch.randn(len(spectrum), len(spectrum))).Q
    return torch.linalg.qr(x - x.mean(0)).Q * (n * torch.tensor(spectrum)).sqrt() @ rotation + 1.0


@pytest.mark.slow
@pytest.mark.parametrize("objective", [IWAE(1), TraceMeanField_ELBO()], ids=lambda o: type(o).__name__)
def test_a_linear_vae_with_a_diagonal_guide_learns_ppca(objective, minimised):
    """Model and guide together reach the maximum likelihood, where two units of three are active."""
    xs = spectral_data(4.0, 2.0, 0.3, 0.3, 0.3)
    best, _, _ = ppca_optimum(xs, 3)
    model = PPCA(0.3 * torch.randn(5, 3), torch.zeros(5), 1.0)
    guide = Diagonal(latents(model, xs), MLP(5, activation=nn.Identity)).double()
    bound = -minimised(objective, model, guide, xs, dims=3, train_model=True)
    assert_close(PPCA.maximum_likelihood(xs, 3).log_px(xs).mean(), best, 1e-9)
    assert_close(model.log_px(xs).mean(), best, 1e-4)
    assert_close(bound, best, 1e-4)
    r = evaluate(model, guide, xs, num_particles=1000)
    assert r.active_units == 2
    assert abs(r.log_px - best) < 4 * r.log_px_se + 1e-4 and abs(r.elbo - best) < 4 * r.elbo_se + 1e-4


def trained(model, guide, objective, xs, steps: int, lr: float) -> None:
    """40 epochs of `fit` over one batch, the learning rate falling to a thousandth."""
    adam = partial(torch.optim.Adam, lr=lr, betas=(0.9, 0.99))
    batches = [(xs,)] * (steps // 40)
    for _ in fit(model, guide, objective, batches, epochs=40, optimizer=adam, scheduler=Falling, progress=False):
        pass


SAMPLED = {
    "Diagonal": (Diagonal, {}, TraceMeanField_ELBO(), 400),
    "FullRank": (FullRank, {}, TraceMeanField_ELBO(), 400),
    "IAF": (IAF, dict(depth=1, width=()), IWAE(1), 6000),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLED)
def test_fit_takes_a_guide_as_near_as_its_family_allows(name):
    """On 64 copies of golden x 1, the model frozen: KL(q || p(z|x)) within 4 standard errors and 2e-4 of the least.

    The flow is left 1e-3: a gate that bends with y fits almost as well, and Adam creeps along that valley. L-BFGS
    without noise closes it to 1e-4, see test_trained_guides.
    """
    Guide, settings, objective, steps = SAMPLED[name]
    model, xs = PPCA(GOLDEN_1.weight, GOLDEN_1.mu, 0.5), X_1.expand(64, -1)
    guide = Guide(latents(model, xs), MLP(4, activation=nn.Identity), **settings).double()
    model.requires_grad_(False)
    trained(model, guide, objective, xs, steps, lr=0.05)
    r = evaluate(model, guide, xs, num_particles=20_000)
    gap = GOLDEN_1.log_px(X_1) - r.elbo
    assert abs(gap - (GOLDEN_1.diagonal_gap if Guide is Diagonal else 0)) < 4 * r.elbo_se + (
        1e-3 if Guide is IAF else 2e-4
    )
    assert r.elbo_se < 1e-4
    assert_close(model.weight, GOLDEN_1.weight, 0)


@pytest.mark.slow
def test_fit_learns_ppca():
    """Within 0.005 nats of the maximum likelihood, which no model passes, with its number of active units."""
    xs = spectral_data(4.0, 2.0, 0.3, 0.3, 0.3)
    best, _, _ = ppca_optimum(xs, 2)
    model = PPCA(0.3 * torch.randn(5, 2), torch.zeros(5), 1.0)
    guide = Diagonal(latents(model, xs), MLP(5, activation=nn.Identity)).double()
    trained(model, guide, TraceMeanField_ELBO(), xs, 2000, lr=0.03)
    r = evaluate(model, guide, xs, num_particles=2000)
    assert best - 0.005 < model.log_px(xs).mean() <= best + 1e-9
    assert best - 0.01 < r.elbo < best + 4 * r.elbo_se and r.active_units == 2
