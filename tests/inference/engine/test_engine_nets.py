"""Nets that keep statistics or read lengths, and flows over data, are stepped as captured to the last bit."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from stepping import same_by_both_engines, slow_but
from torch import nn

from dlvm.distributions import Bernoulli, Composition, FlowDensity, LogisticNoise, Logit, image_flow
from dlvm.guides import Dequantiser, Diagonal, latents
from dlvm.inference import IWAE
from dlvm.models import VAE, Dequantised
from dlvm.nets import GRU, MLP, BatchNorm, BatchNorm2d, Conv, Deconv, DeepSet, GatedBlock, NormedLinear


class Sequences(PyroModule):
    """Means of the steps that there are, of one latent number each."""

    def __init__(self):
        super().__init__("model")
        self.net = nn.Linear(1, 2)

    def forward(self, x, lengths):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            there = (torch.arange(x.shape[-2]) < lengths[:, None])[..., None]
            there = there.expand(z.shape[:-1] + x.shape[-2:])
            pyro.sample(
                "x", dist.Normal(self.net(z)[..., None, :], 1.0).expand(there.shape).mask(there).to_event(2), obs=x
            )


def normed():
    model = VAE(2, Bernoulli(MLP(2, 8, 9, layer=NormedLinear, norm=BatchNorm)))
    x = torch.rand(6, 9).round()
    return model, Diagonal(latents(model, x), MLP(9, 8, 8, layer=NormedLinear, norm=BatchNorm)), (x,)


def images():
    shape = (3, 3)
    model = VAE(2, Bernoulli(Deconv(2, 4, 9, shape=shape, block=GatedBlock)))
    x = torch.rand(6, 9).round()
    return model, Diagonal(latents(model, x), Conv(9, 4, 8, shape=shape, block=BatchNorm2d)), (x,)


def sequences(make):
    def pair():
        model, args = Sequences(), (torch.randn(6, 4, 2), torch.tensor([4, 1, 2, 3, 4, 2]))
        return model, Diagonal(latents(model, *args), make()), args

    return pair


def flows():
    """Grey levels under couplings of two scales, and a latent vector that they are given."""
    flow = image_flow((1, 4, 4), width=4, blocks=1, depth=1, context=3, actnorm=True, mixing=True)
    likelihood = FlowDensity(Composition(Logit(), flow), 16, net=nn.Linear(2, 3))
    model, x = Dequantised(VAE(2, likelihood), 3), torch.randint(3, (6, 16)) / 2
    sites = latents(model, x)
    guide = Dequantiser(Diagonal({"z": sites["z"]}, MLP(16, 4)), sites["u"], LogisticNoise(MLP(16, 4), 16))
    return model, guide, (x,)


PAIRS = {
    "flows": flows,
    "weight and batch norm": normed,
    "images": images,
    "gru": sequences(lambda: GRU(2, 4, reverse=True)),
    "set": sequences(lambda: DeepSet(MLP(2, 4), MLP(4, 4))),
}


@pytest.mark.parametrize("case", slow_but("weight and batch norm, images", PAIRS))
def test_steps_are_those_of_the_eager_engine_to_the_last_bit(case):
    eager, _ = same_by_both_engines(PAIRS[case], lambda: IWAE(3), 4)
    moved = [name for name in eager.state if name.endswith("running_mean") and (eager.state[name] != 0).all()]
    assert len(moved) == {"weight and batch norm": 2, "images": 1}.get(case, 0)
