"""Models without latents: what each can and cannot learn, and that the engine steps them as Pyro does."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn

from dlvm.distributions import Bits, ChainRule
from dlvm.guides import Diagonal, FullyObserved, latents
from dlvm.inference import ELBO, SVI, MaximumLikelihood, evaluate
from dlvm.models import VAE, FullyVisible
from dlvm.nets import MLP, NADE, CausalTransformer, OrderedMADE, PixelCNN

NETS = {
    "fvsbn": lambda: OrderedMADE(4, ()),
    "made": lambda: OrderedMADE(4, (8,), orders=2),
    "nade": lambda: NADE(4, 5),
    "pixel_cnn": lambda: PixelCNN((1, 2, 2), channels=3, layers=2, receptive_field=2),
    "transformer": lambda: CausalTransformer(4, 2, 1, width=8),
}
PARITY = torch.tensor([[a, b, a ^ b] for a in (0, 1) for b in (0, 1)]).float()


def visible(net: nn.Module) -> FullyVisible:
    return FullyVisible(ChainRule(net, Bits()))


@pytest.mark.slow
@pytest.mark.parametrize(
    "make, expected",
    [
        (
            lambda: OrderedMADE(3, ()),
            -3 * math.log(2),
        ),  # a logistic regression on two bits knows nothing of their parity
        (lambda: OrderedMADE(3, (16,)), -2 * math.log(2)),
        (lambda: OrderedMADE(3, (16,), orders=3), -2 * math.log(2)),
    ],
    ids=["fvsbn", "made", "orders"],
)
def test_parity_is_learned_by_a_hidden_layer_and_by_no_linear_model(make, expected):
    torch.manual_seed(0)
    model = visible(make())
    svi = SVI(model, FullyObserved(), partial(torch.optim.Adam, lr=0.03), MaximumLikelihood(), engine="captured")
    for _ in range(250):
        svi.step(PARITY)
    assert evaluate(model, FullyObserved(), PARITY, num_particles=1).log_px == pytest.approx(expected, abs=0.02)
    if expected > -2:
        x = model(n=300)
        assert (x[:, 2] == (x[:, 0] != x[:, 1]).float()).float().mean() > 0.97


@pytest.mark.parametrize("name", [*NETS, "pixel vae"])
def test_captured_steps_are_pyros_own(name):
    x, losses = (torch.rand(7, 4) < 0.5).float(), []
    for engine in ("eager", "captured"):
        torch.manual_seed(1)
        if name == "pixel vae":
            net = PixelCNN((1, 2, 2), channels=3, layers=2, receptive_field=1, context=5)
            model = VAE(2, ChainRule(net, Bits(), MLP(2, 5)))
            guide = Diagonal(latents(model, x), MLP(4, 6))
        else:
            model, guide = visible(NETS[name]()), FullyObserved()
        svi = SVI(model, guide, torch.optim.Adam, ELBO(), engine=engine)
        losses.append([svi.step(x) for _ in range(4)])
    assert losses[0] == losses[1] and losses[0][0] != losses[0][3]


def test_its_density_is_that_of_its_likelihood():
    torch.manual_seed(2)
    model, x = visible(NETS["nade"]()), (torch.rand(5, 4) < 0.5).float()
    found = evaluate(model, FullyObserved(), x, num_particles=1)
    assert found.log_px == pytest.approx(model.likelihood().log_prob(x).mean().item(), abs=1e-6)
    assert found.log_px_se == 0 and found.elbo == found.log_px
