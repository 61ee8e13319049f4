"""bfloat16 products for training: close gradients, parameters and every reported number in single precision."""

from __future__ import annotations

from functools import partial

import pyro
import pytest
import torch
from pairs import pair
from pyro.infer import Trace_ELBO
from stepping import Adam, gradient, run, same_by_both_engines
from torch import nn
from torch.nn import functional as F

from dlvm.distributions import Bernoulli
from dlvm.guides import Diagonal, latents
from dlvm.inference import IWAE, SVI
from dlvm.inference.engine.step import precise
from dlvm.models import VAE
from dlvm.nets import MLP


def wide():
    """Wide enough that rounding errors average out as they do in practice."""
    x = torch.rand(200, 40).round()
    model = VAE(4, Bernoulli(MLP(4, 32, 40)))
    return model, Diagonal(latents(model, x), MLP(40, 32)), (x,)


@pytest.mark.parametrize("engine", ["eager", pytest.param("captured", marks=pytest.mark.slow)])
@pytest.mark.parametrize("objective", [Trace_ELBO, partial(IWAE, 3)])
def test_gradients_are_within_two_percent(objective, engine):
    exact, rough = (gradient(wide, objective, engine, 3, precision=p) for p in ("fp32", "bf16"))
    assert 0 < (exact - rough).norm() / exact.norm() < 2e-2


def test_a_captured_step_is_the_eager_one():
    eager, captured = same_by_both_engines(wide, Trace_ELBO, 6, precision="bf16")
    exact = run(wide, Trace_ELBO, "captured", 6)
    assert captured.losses != exact.losses
    assert captured.losses == pytest.approx(exact.losses, rel=1e-2)


@pytest.mark.parametrize("engine", ["eager", "captured"])
def test_parameters_and_moments_stay_in_single_precision(engine):
    left = run(wide, Trace_ELBO, engine, 4, precision="bf16").state
    assert {value.dtype for value in left.values() if value.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("engine", ["eager", "captured"])
def test_losses_without_steps_are_exact(engine):
    pyro.set_rng_seed(3)
    model, guide, (x,) = wide()
    losses = []
    for precision in ("fp32", "bf16"):
        svi = SVI(model, guide, Adam, Trace_ELBO(), engine=engine, precision=precision)
        pyro.set_rng_seed(5)
        losses.append([svi.evaluate_loss(x) for _ in range(4)])
    assert losses[0] == losses[1]


def test_outside_a_step_nothing_is_rounded():
    net, x = nn.Linear(7, 5), torch.randn(3, 7)
    before = net(x)
    run(pair, Trace_ELBO, "captured", 3, precision="bf16")
    assert torch.equal(net(x), before)
    with precise("bf16"):
        assert not torch.equal(net(x), before)


LAYERS = {
    "linear": (nn.Linear(6, 5), torch.randn(4, 6)),
    "linear without bias": (nn.Linear(6, 5, bias=False), torch.randn(4, 6)),
    "linear, more dimensions": (nn.Linear(6, 5), torch.randn(2, 3, 4, 6)),
    "linear, one datum": (nn.Linear(6, 5), torch.randn(6)),
    "conv1d": (nn.Conv1d(3, 5, 3, padding=1), torch.randn(4, 3, 8)),
    "conv2d, strides, groups": (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), torch.randn(4, 4, 8, 8)),
    "conv2d, padding by name": (nn.Conv2d(4, 6, 3, padding="same"), torch.randn(4, 4, 8, 8)),
    "conv2d, one datum": (nn.Conv2d(4, 6, 3), torch.randn(4, 8, 8)),
    "conv3d": (nn.Conv3d(2, 3, 3), torch.randn(2, 2, 5, 5, 5)),
    "transposed 2d": (nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1), torch.randn(4, 4, 5, 5)),
    "transposed 1d without bias": (nn.ConvTranspose1d(4, 6, 4, bias=False), torch.randn(4, 4, 5)),
    "functions with keywords": (
        lambda x, net=nn.Linear(6, 5): F.linear(input=x, weight=net.weight, bias=net.bias),  # noqa: B008
        torch.randn(4, 6),
    ),
    "bias by keyword": (lambda x, net=nn.Linear(6, 5): F.linear(x, net.weight, bias=net.bias), torch.randn(4, 6)),  # noqa: B008
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_is_close_to_its_exact_self_and_returns_floats(name):
    layer, x = LAYERS[name]
    exact = layer(x)
    with precise("bf16"):
        rough = layer(x)
    assert rough.dtype == torch.float32 and rough.shape == exact.shape
    assert 0 < (rough - exact).norm() / exact.norm() < 1e-2


def test_double_precision_and_integers_are_left_alone(float64):
    net, x = nn.Linear(6, 5), torch.randn(4, 6)
    exact = net(x)
    with precise("bf16"):
        assert torch.equal(net(x), exact)
