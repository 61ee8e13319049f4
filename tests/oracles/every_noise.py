"""Estimators that draw noise behind discrete draws: their mean over every draw and all that noise, by quadrature."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from dlvm.inference.estimators import soft_draws
from dlvm.inference.estimators.coupled import Given
from oracles import assert_close
from oracles.discrete_programs import bernoulli, pair
from oracles.forcing import gradient


def one_bit():
    found, parameters = pair(lambda p, x: bernoulli("z", p[0].expand(len(x))), lambda p, z: p[1] * z + p[2] * z.sin())
    return found._replace(values={"z": torch.tensor([0.0, 1.0])}), parameters


def one_class():
    def draw(p, x):
        return pyro.sample("z", dist.OneHotCategorical(logits=p[:3].expand(len(x), 3)))

    found, parameters = pair(draw, lambda p, z: (z * p[3:6]).sum(-1) + p[6] * z[..., 0] * z[..., 1].exp())
    return found._replace(values={"z": torch.eye(3)}), parameters


def layers_of_classes():
    """A class, and from it a bit and another class."""

    def draw(p, x):
        y = pyro.sample("y", dist.OneHotCategorical(logits=p[:3].expand(len(x), 3)))
        z = bernoulli("z", (y * p[3:6]).sum(-1))
        return y, z, pyro.sample("v", dist.OneHotCategorical(logits=torch.stack([y[..., 0] * p[6], p[7] + z], -1)))

    found, parameters = pair(draw, lambda p, v: p[8] * v[0][..., 1] + p[9] * v[1] * v[2][..., 0] + p[4] * v[0][..., 2])
    return found._replace(values={"y": torch.eye(3), "z": torch.tensor([0.0, 1.0]), "v": torch.eye(2)}), parameters


def every_noise(lattice, parameters, num_particles: int, nodes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draws (K, rows, *event), noise of the same shape, and how likely each row is: quadrature between 0 and 1."""
    values = lattice.values["z"]
    points, weights = (torch.from_numpy(found) for found in np.polynomial.legendre.leggauss(nodes))
    points, weights = (points + 1) / 2, weights / 2
    size = values[0].numel()
    axes = [torch.arange(len(values))] * num_particles + [torch.arange(nodes)] * (num_particles * size)
    index = torch.cartesian_prod(*axes).reshape(-1, len(axes))
    chosen, noise = index[:, :num_particles], index[:, num_particles:]
    with poutine.block(), poutine.condition(data={"z": values}):
        trace = poutine.trace(lattice.guide).get_trace(lattice.x.expand(len(values), -1))
        trace.compute_log_prob()
    mass = trace.nodes["z"]["log_prob"].exp().detach()[chosen].prod(1) * weights[noise].prod(1)
    event = values.shape[1:]
    u = points[noise].reshape(len(index), num_particles, *event).transpose(0, 1)
    return values[chosen].transpose(0, 1), u, mass


def mean_gradient(monkeypatch, objective, lattice, parameters, nodes: int) -> Tensor:
    value, u, mass = every_noise(lattice, parameters, objective.num_particles, nodes)
    assert_close(mass.sum(), 1.0, 1e-10)
    monkeypatch.setattr(soft_draws, "_uniform", lambda shape, like: u.reshape(shape))
    programs = (poutine.scale(program, scale=mass) for program in (lattice.model, lattice.guide))
    with Given({"z": value.squeeze(0) if objective.num_particles == 1 else value}):
        loss = objective.differentiable_loss(*programs, lattice.x.expand(len(mass), -1))
    return -gradient(loss, parameters)
