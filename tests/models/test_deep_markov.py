"""The deep Markov model against linear dynamics, sequences alone, and a step by each engine."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn

from dlvm.distributions import Bernoulli, GatedTransition
from dlvm.guides import IAF, Diagonal, FullRank, MeanFieldOverTime, Sequential, latents
from dlvm.inference import ELBO, SVI, check
from dlvm.models import DeepMarkov, LinearGaussianSSM
from dlvm.nets import MLP, Recurrent

LENGTHS = torch.tensor([6, 1, 4])
FAMILIES = {"diagonal": Diagonal, "full rank": FullRank, "iaf": partial(IAF, width=5)}


class Linear(nn.Module):
    """A Gaussian step, or emission, of a linear model."""

    def __init__(self, weight: Tensor, loc: Tensor, log_scale: Tensor):
        super().__init__()
        self.weight, self.loc, self.scale = weight, loc, log_scale.exp()

    def forward(self, z: Tensor) -> dist.Distribution:
        return dist.Normal(z @ self.weight.T + self.loc, self.scale).to_event(1)


def binary(double: bool = True) -> tuple[DeepMarkov, Tensor]:
    torch.manual_seed(0)
    model = DeepMarkov(2, Bernoulli(MLP(2, 5, 4)), GatedTransition(2, 3))
    model, x = (model.double() if double else model), (torch.rand(3, 6, 4) < 0.4).double()
    nn.init.normal_(model.start)
    return model, x if double else x.float()


def joint(model: DeepMarkov | LinearGaussianSSM, z: Tensor, *data: Tensor) -> Tensor:
    """log p(x, z) of each sequence."""
    trace = poutine.trace(poutine.condition(model, {"z": z})).get_trace(*data)
    trace.compute_log_prob()
    return trace.nodes["z"]["log_prob"] + trace.nodes["x"]["log_prob"]


def test_with_linear_nets_it_is_the_linear_gaussian_model():
    torch.manual_seed(0)
    known = LinearGaussianSSM(2, 4).double()
    for parameter in known.parameters():
        nn.init.normal_(parameter, std=0.7)
    start = torch.randn(2).double()
    with torch.no_grad():
        known.first_loc.copy_(known.transition @ start)
        known.first_log_scale.copy_(known.log_drift)
    step = Linear(known.transition, torch.zeros(2).double(), known.log_drift)
    model = DeepMarkov(2, Linear(known.weight, known.loc, known.log_scale), step).double()
    model.start.data.copy_(start)
    x, z = torch.randn(3, 6, 4).double(), torch.randn(3, 6, 2).double()
    x[0, 2], x[2, 1, 3], x[1, 1:] = torch.nan, torch.nan, torch.nan
    torch.testing.assert_close(joint(model, z, x, LENGTHS), joint(known, z, x, LENGTHS))
    filtered = model.stepwise(x, LENGTHS).densities(z)
    torch.testing.assert_close(sum(filtered).sum(-1), joint(known, z, x, LENGTHS))


def test_a_sequence_counts_as_it_does_alone():
    model, x = binary()
    z = torch.randn(3, 6, 2).double()
    x[1, 1:], z[1, 1:] = torch.nan, 1e9
    found = joint(model, z, x, LENGTHS)
    alone = [joint(model, z[i : i + 1, :n], x[i : i + 1, :n]) for i, n in enumerate(LENGTHS.tolist())]
    torch.testing.assert_close(found, torch.cat(alone))
    found.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_a_shut_gate_leaves_the_state_in_its_place():
    step, z = GatedTransition(3, 4), torch.randn(5, 3)
    nn.init.constant_(step.gate[-1].bias, -100.0)
    torch.testing.assert_close(step(z).mean, z)
    nn.init.constant_(step.gate[-1].bias, 100.0)
    torch.testing.assert_close(step(z).mean, step.proposal(z))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("make", [Sequential, MeanFieldOverTime])
def test_guides_over_time_fit_it_with_any_family_and_steps_are_captured(name, make):
    """The number of steps is that of a batch; a captured step has the loss and the gradients of an eager one."""
    losses = {}
    for engine in ("eager", "captured"):
        model, x = binary(double=False)
        guide = make(latents(model, x, LENGTHS), Recurrent(4, 5), FAMILIES[name])
        assert check(model, guide, ELBO(2), x[:, :4], LENGTHS.clamp_max(4)) == {"z": "Monte Carlo"}
        pyro.set_rng_seed(1)
        svi = SVI(model, guide, partial(torch.optim.Adam, lr=0.01), ELBO(), engine=engine)
        losses[engine] = [svi.step(x, LENGTHS) for _ in range(4)]
    assert losses["eager"] == losses["captured"]


def test_what_are_no_sequences_is_refused():
    model, x = binary()
    with pytest.raises(ValueError, match=r"lengths must have shape \(3,\), one for each sequence, got \(2,\)"):
        model(x, LENGTHS[:2])
    with pytest.raises(ValueError, match="lengths must be from 1 to 6"):
        model(x, LENGTHS + 1)
    with pytest.raises(ValueError, match="x has events of shape"):
        model(x[..., :3])
