"""log p(x) by particle filters, held against Kalman's within its own standard errors."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from dlvm.evidence import exact, particle_filter
from dlvm.inference import Resampling
from dlvm.models import LinearGaussianSSM, OrnsteinUhlenbeck


def walking(sequences: int, steps: int) -> tuple[LinearGaussianSSM, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    model = LinearGaussianSSM(2, 3).requires_grad_(False)
    lengths = torch.randint(1, steps + 1, (sequences,))
    lengths[0] = steps
    x = model(n=sequences, steps=steps, lengths=lengths).detach()
    x = torch.where((torch.arange(steps) < lengths[:, None])[..., None], x, torch.nan)
    return model, [(x[:7], lengths[:7]), (x[7:], lengths[7:])]


@pytest.mark.parametrize("guided", [False, True])
def test_the_estimate_is_kalmans_within_its_standard_errors(guided):
    model, data = walking(12, 8)
    known = exact(model, data)
    found = particle_filter(model, model.guide if guided else None, data, 20, rows=5)
    z = (found.log_px - known.log_px) / (found.log_px_se + 1e-6)
    assert z.abs().max() < 4 and z.square().mean() < 2.5, z
    assert found.num_samples == 32 and found.side == "lower" and not found.khat.isnan().all()
    assert ("bootstrap filter" if not guided else "particle filter") in str(found)


@pytest.mark.parametrize("guided", [False, True])
def test_at_irregular_times_and_with_holes_it_is_the_exact_answer_within_its_standard_errors(guided):
    torch.manual_seed(0)
    model, lengths = OrnsteinUhlenbeck(2, 3).requires_grad_(False), torch.tensor([6, 1, 4, 6, 3])
    times = (0.1 + 3 * torch.rand(5, 6)).cumsum(-1)
    x = model(times=times, lengths=lengths).detach()
    x[0, 2], x[3, 1, 0] = torch.nan, torch.nan
    known = model.log_px(x, lengths, times)
    found = particle_filter(model, model.guide if guided else None, [(x, lengths, times)], 50)
    z = (found.log_px - known) / (found.log_px_se + 1e-5)
    assert z.abs().max() < 4, z


def test_on_long_sequences_it_is_nearer_than_importance_sampling_of_as_many_particles():
    torch.manual_seed(0)
    model = LinearGaussianSSM(1, 2).requires_grad_(False)
    x = model(n=3, steps=80).detach()
    known = model.log_px(x).detach().double()
    prior = particle_filter(model, None, x, 50, 32, Resampling(below=0.0))
    found = particle_filter(model, None, x, 50, 32)
    assert (found.log_px - known).abs().max() < 3
    assert ((known - prior.log_px) > 5 * (known - found.log_px).abs()).all()


def test_what_has_no_steps_is_refused_in_words():
    model, _ = walking(8, 4)
    x = torch.zeros(5, 4, 3)
    with pytest.raises(ValueError, match="guide function cannot be gone through step by step.*draws 1 sites from"):
        particle_filter(model, by_itself, x)


def by_itself(x: Tensor, lengths: Tensor | None = None) -> Tensor:
    with pyro.plate("data", len(x)):
        return pyro.sample("z", dist.Normal(torch.zeros(4, 2), 1.0).to_event(2))
