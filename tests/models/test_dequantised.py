"""Grey levels under a density: the bound against the exact probability of the cells, draws, holes, the engine."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from dlvm.distributions import ConstantScaleNormal, FixedScale, LogisticNoise, Missing
from dlvm.distributions.likelihoods.dequantised import CellLevels, Cells
from dlvm.guides import Dequantiser, Diagonal, latents
from dlvm.inference import ELBO, check, evaluate, fit, log_weights
from dlvm.models import VAE, Dequantised
from dlvm.nets import MLP

D, LEVELS, SCALE = 3, 4, 0.15
LOC = torch.tensor([0.2, 0.5, 0.7])


def prior_of_z(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))


def without_z(missing: bool = False) -> Dequantised:
    """Independent normal numbers, whatever z is."""
    decoder = nn.Linear(1, D)
    with torch.no_grad():
        decoder.weight.zero_()
        decoder.bias.copy_(LOC)
    likelihood = ConstantScaleNormal(decoder, FixedScale(SCALE))
    return Dequantised(VAE(1, Missing(likelihood) if missing else likelihood), LEVELS).requires_grad_(False).eval()


def cell_log_probs() -> torch.Tensor:
    """log of the integral of each column's density over each cell, shape (D, LEVELS)."""
    ends = torch.linspace(0, 1, LEVELS + 1).double()
    mass = torch.special.ndtr((ends - LOC.double()[:, None]) / SCALE)
    return mass.diff(dim=1).log()


EVERY = torch.cartesian_prod(*[torch.arange(float(LEVELS))] * D)


def exact() -> torch.Tensor:
    return cell_log_probs()[torch.arange(D), EVERY.long()].sum(-1)


def pair(model=None, posterior=None):
    model = without_z() if model is None else model
    sites = latents(model, EVERY / (LEVELS - 1))
    assert list(sites) == ["z", "u"] and sites["u"].shape == (D,)
    return model, Dequantiser(prior_of_z, sites["u"], posterior)


def test_the_bound_of_uniform_noise_lies_below_the_probability_by_what_theory_says():
    """E_u log N(y; m, s^2) is the density's logarithm at the cell's middle less 1 / (24 levels^2 s^2)."""
    x = EVERY / (LEVELS - 1)
    found = log_weights(*pair(), x, num_particles=4000)
    middle = dist.Normal(LOC, SCALE).log_prob((EVERY + 0.5) / LEVELS)
    bound = (middle - 1 / (24 * (LEVELS * SCALE) ** 2) - math.log(LEVELS)).sum(-1)
    error = found.std(0) / 4000**0.5
    assert ((found.mean(0) - bound).abs() < 5 * error).all()
    assert (bound < exact()).all()
    many = found.double().logsumexp(0) - math.log(4000)
    assert ((many - exact()).abs() < 5 * (found - many).double().exp().std(0) / 4000**0.5).all()


def test_probabilities_are_integrals_over_cells_and_sum_to_the_mass_between_0_and_1():
    density = dist.Normal(LOC[:2].double(), SCALE).to_event(1)
    grid = (torch.arange(200).double() + 0.5) / 200
    u = torch.cartesian_prod(grid, grid)
    levels = torch.cartesian_prod(*[torch.arange(float(LEVELS)).double()] * 2) / (LEVELS - 1)
    found = torch.stack([CellLevels(Cells(density, LEVELS), u).log_prob(x).exp().mean() for x in levels])
    cells = cell_log_probs()[:2].exp()
    assert torch.allclose(found, torch.outer(*cells).flatten(), rtol=1e-4)
    assert found.sum().item() == pytest.approx(cells.sum(1).prod().item(), rel=1e-4)


def test_draws_have_the_cells_probabilities_and_their_noise_is_that_of_the_density():
    n = 20_000
    trace = pyro.poutine.trace(without_z()).get_trace(n=n)
    x, u = trace.nodes["x"]["value"], trace.nodes["u"]["value"]
    cell = (x * (LEVELS - 1)).round()
    assert (cell / (LEVELS - 1) == x).all() and ((u >= 0) & (u <= 1)).all()
    p = cell_log_probs().exp()
    share = torch.stack([(cell == k).double().mean(0) for k in range(LEVELS)], 1)
    inside = slice(1, LEVELS - 1)  # the outer ones take the tails as well
    assert ((share - p).abs()[:, inside] < 5 * (p * (1 - p) / n).sqrt()[:, inside]).all()
    y = (cell + u) / LEVELS
    within = (cell[:, 1] == 1) | (cell[:, 1] == 2)
    truncated = dist.Normal(LOC[1], SCALE).sample((n,))
    truncated = truncated[(truncated > 0.25) & (truncated < 0.75)]
    error = (y[within, 1].var() / within.sum() + truncated.var() / len(truncated)) ** 0.5
    assert (y[within, 1].mean() - truncated.mean()).abs() < 5 * error


def test_bits_are_of_a_probability_and_noise_is_no_unit():
    x = EVERY / (LEVELS - 1)
    found = evaluate(*pair(), x, num_particles=2000)
    assert abs(found.log_px - exact().mean()) < 5 * found.log_px_se + 1e-3
    assert found.bits_per_dim == pytest.approx(-found.log_px / (D * math.log(2)))
    assert found.units == 1 and found.rate == 0 and not found.density
    inside = evaluate(without_z().model, prior_of_z, x, num_particles=2)
    assert inside.density and inside.bits_per_dim == pytest.approx(-inside.log_px / (D * math.log(2)))


def test_a_learned_noise_starts_as_the_uniform_and_raises_the_bound():
    noise = LogisticNoise(MLP(D, 8), D)
    x = EVERY / (LEVELS - 1)
    u = torch.rand(len(x), D)
    assert noise(x).log_prob(u).abs().max() < 1e-4
    model, guide = pair(posterior=noise)
    adam = lambda parameters: torch.optim.Adam(parameters, lr=0.1)  # noqa: E731
    list(fit(model, guide, ELBO(), [(x,)], epochs=25, optimizer=adam, seed=0, progress=False))
    uniform = log_weights(*pair(), x, num_particles=500).mean().item()
    learned = log_weights(model, guide, x, num_particles=500).mean().item()
    assert uniform + 0.1 < learned < exact().mean().item() + 0.01


def test_a_learned_noise_has_an_integral_of_one():
    noise = LogisticNoise(nn.Linear(2, 4), 1)
    nn.init.normal_(noise.head.weight)
    grid = ((torch.arange(20_000) + 0.5) / 20_000)[:, None]
    assert noise(torch.tensor([1.0, -1.0])).log_prob(grid).exp().mean().item() == pytest.approx(1, abs=1e-3)


def test_a_pixel_that_is_missing_counts_nothing():
    model, guide = pair(without_z(missing=True))
    x = (EVERY / (LEVELS - 1)).clone()
    x[:, 1] = math.nan
    found = log_weights(model, guide, x, num_particles=2000)
    there = cell_log_probs()[torch.tensor([0, 2]), EVERY[:, [0, 2]].long()].sum(-1)
    many = found.double().logsumexp(0) - math.log(2000)
    assert ((many - there).abs() < 5 * (found - many).double().exp().std(0) / 2000**0.5).all()


def test_captured_steps_are_the_eager_ones():
    x = EVERY / (LEVELS - 1)

    def run(engine):
        pyro.set_rng_seed(0)
        model = Dequantised(VAE(2, ConstantScaleNormal(MLP(2, 8, D))), LEVELS)
        sites = latents(model, x)
        guide = Dequantiser(Diagonal({"z": sites["z"]}, MLP(D, 8)), sites["u"], LogisticNoise(MLP(D, 8), D))
        check(model, guide, ELBO(), x)
        batches = [(rows,) for rows in x.split(32)]
        epochs = list(fit(model, guide, ELBO(), batches, epochs=3, seed=0, engine=engine, progress=False))
        assert list(epochs[-1].active) == ["z"]
        return [e.train for e in epochs]

    assert run("captured") == run("eager")


def test_data_that_are_no_levels_are_refused():
    with pytest.raises(ValueError, match="GreyLevel"):
        check(*pair(), ELBO(), EVERY / (LEVELS - 1) + 0.05)
