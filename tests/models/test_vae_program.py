"""The VAE's program: its sites, its joint density by hand, its marginal by two quadratures."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch
from oracles import Gaussian, assert_close, log_px_grid, log_px_hermite
from pyro import poutine
from torch import nn

from dlvm.distributions import Bernoulli, StandardNormal
from dlvm.models import VAE
from dlvm.nets import MLP


def build(z_dim: int = 2) -> VAE:
    return VAE(z_dim, Bernoulli(MLP(z_dim, 8, 6, activation=nn.Tanh))).double()


def binary(*shape: int) -> torch.Tensor:
    return (torch.rand(shape) < 0.5).double()


def test_sites_shapes_and_plate():
    x = binary(5, 6)
    nodes = poutine.trace(build()).get_trace(x).nodes
    assert [n for n, s in nodes.items() if s["type"] == "sample" and n != "data"] == ["z", "x"]
    assert nodes["z"]["value"].shape == (5, 2) and not nodes["z"]["is_observed"]
    assert nodes["x"]["is_observed"] and nodes["x"]["value"] is x
    assert [f.name for f in nodes["z"]["cond_indep_stack"]] == ["data"]


def test_without_data_it_draws():
    model = build()
    x = model(n=7)
    assert x.shape == (7, 6) and set(x.unique().tolist()) <= {0.0, 1.0} and model().shape == (1, 6)
    nodes = poutine.trace(model).get_trace(n=7).nodes
    assert not nodes["x"]["is_observed"]


def test_marginal_of_the_program_sums_to_one_over_all_images():
    """sum over the 2^6 images of p(x) = 1, with p(x) integrated from the program's own log joint."""
    model = build()
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 6)

    def log_joint(z: torch.Tensor) -> torch.Tensor:
        decoder = model.likelihood(z)
        prior = model.prior().log_prob(z)
        return prior + decoder.log_prob(images[:, None])

    by_grid = log_px_grid(log_joint, half_width=8, points=81)
    assert_close(by_grid.logsumexp(0), 0.0, 1e-9)
    assert_close(log_px_hermite(log_joint, nodes=60), by_grid, 1e-5)


def test_joint_density_by_hand():
    model, x = build(3), binary(5, 6)
    trace = poutine.trace(model).get_trace(x)
    z = trace.nodes["z"]["value"]
    logits = model.likelihood.net(z)
    log_lik = (x * nn.functional.logsigmoid(logits) + (1 - x) * nn.functional.logsigmoid(-logits)).sum()
    prior = Gaussian(torch.zeros(3).double(), torch.eye(3).double()).log_prob(z).sum()
    assert_close(trace.log_prob_sum(), prior + log_lik, 1e-10)


def test_the_prior_can_be_swapped_and_learned():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.tensor([3.0, -3.0]))

        def forward(self):
            return dist.Normal(self.loc, 0.1).to_event(1)

    model = VAE(2, Bernoulli(MLP(2, 8, 6)), prior=Shifted())
    trace = poutine.trace(model).get_trace(n=2000)
    assert (trace.nodes["z"]["value"].mean(0) - torch.tensor([3.0, -3.0])).abs().max() < 5 * 0.1 / math.sqrt(2000)
    assert any(p is model.prior.loc for p in model.parameters())


def test_prior_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"prior has event shape \(3,\) where z_dim=2 needs \(2,\)"):
        VAE(2, Bernoulli(MLP(2, 8, 6)), prior=StandardNormal(3))


def test_greys_are_refused():
    with pytest.raises(ValueError, match="support"):
        poutine.trace(build()).get_trace(torch.full((5, 6), 0.3).double()).compute_log_prob()
