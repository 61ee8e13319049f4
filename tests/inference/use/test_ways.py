"""interpolate and traverse against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from dlvm.distributions import VonMisesFisher
from dlvm.inference import decode, interpolate, traverse
from dlvm.models import burda

from .pairs import CENTRES, LINEAR, LOC, MIXTURE, TABLE, WEIGHT, X, guess, posterior


def test_the_way_between_two_data_of_a_linear_model_is_straight():
    way = interpolate(LINEAR, posterior, X[:3], X[3:6], steps=5)
    ends = [LINEAR.posterior(x).loc @ WEIGHT.T + LOC for x in (X[:3], X[3:6])]
    t = torch.linspace(0, 1, 5)[None, :, None]
    torch.testing.assert_close(way, (1 - t) * ends[0][:, None] + t * ends[1][:, None], rtol=0, atol=1e-5)
    table = type(TABLE)(X[:3].numpy(), "abc", "abcd")
    found = interpolate(LINEAR, posterior, table, X[3:6].numpy(), steps=5)
    np.testing.assert_allclose(found, way.numpy(), atol=1e-5)


def test_classes_change_half_way():
    way = interpolate(MIXTURE, guess, 3 * CENTRES[:1], 3 * CENTRES[1:2], steps=4)
    assert torch.equal(way[0], CENTRES[[0, 0, 1, 1]])


def ring(x=None, n=1):
    with pyro.plate("data", n if x is None else len(x)):
        z = pyro.sample("z", VonMisesFisher(torch.tensor([1.0, 0.0, 0.0]), torch.tensor(0.1)))
        angle = pyro.sample("angle", dist.VonMises(torch.zeros(()), torch.ones(())))
        return pyro.sample("x", dist.Normal(torch.cat([z, angle[:, None]], -1), 1.0).to_event(1), obs=x)


def read_off(x, n=1):
    with pyro.plate("data", len(x)):
        pyro.sample("z", VonMisesFisher(x[:, :3], torch.tensor(1e4)))
        pyro.sample("angle", dist.VonMises(x[:, 3], torch.tensor(1e4)))


def test_directions_and_angles_go_along_the_shortest_arc():
    a = torch.tensor([[1.0, 0.0, 0.0, math.pi - 0.2]])
    b = torch.tensor([[0.0, 1.0, 0.0, -math.pi + 0.2]])
    way = interpolate(ring, read_off, a, b, steps=3)[0]
    torch.testing.assert_close(way[:, :3].norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(way[1, :3], torch.tensor([0.5, 0.5, 0.0]).sqrt(), rtol=0, atol=0.02)
    assert (way[1, 3].abs() - math.pi).abs() < 0.02


def test_one_number_goes_and_the_others_stay():
    found = traverse(LINEAR, "z", dims=[1], values=[-1.0, 2.0])
    torch.testing.assert_close(found[0], LOC + torch.tensor([[-1.0], [2.0]]) * WEIGHT[:, 1])
    at = torch.tensor([[0.5, 9.0]])
    found = traverse(LINEAR, "z", dims=[1], values=[-1.0, 2.0], at=at)
    torch.testing.assert_close(found[0], LOC + 0.5 * WEIGHT[:, 0] + torch.tensor([[-1.0], [2.0]]) * WEIGHT[:, 1])
    assert traverse(LINEAR, "z").shape == (2, 7, 4)


def test_layers_below_are_at_their_means():
    model = burda(6, (4, 2), (8, 8))
    found = traverse(model, "z2", dims=[0], values=[1.5])
    z1 = model.conditionals[0](torch.tensor([[1.5, 0.0]])).mean
    torch.testing.assert_close(found[0], decode(model, {"z1": z1}))
    assert torch.equal(found, traverse(model, "z2", dims=[0], values=[1.5], seed=3))
