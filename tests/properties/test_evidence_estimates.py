"""Estimates, brackets and records of evidence, of data of any number and cut: unbiased, ordered, the sum of parts."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from hypothesis import given
from hypothesis import settings as running
from hypothesis import strategies as st

import dlvm.evidence as room
from dlvm.distributions import Bernoulli
from dlvm.evidence import Estimate
from dlvm.guides import Diagonal, latents
from dlvm.models import PPCA, VAE
from dlvm.nets import MLP

SEEDS = st.integers(0, 2**32 - 1)
WEIGHT = torch.tensor([[1.0, 0.0], [0.5, -1.0], [0.0, 0.3]])
MODEL = PPCA(WEIGHT, torch.zeros(3), 0.8)
BROAD = Diagonal(latents(MODEL, torch.zeros(2, 3)), MLP(3, 4))
BINARY = VAE(2, Bernoulli(MLP(2, 6, 4)))
PAIRS = {
    "Gaussian": (MODEL, BROAD, torch.randn(7, 3, generator=torch.Generator().manual_seed(0))),
    "Bernoulli": (BINARY, Diagonal(latents(BINARY, torch.zeros(2, 4)), MLP(4, 4)), torch.eye(4).repeat(2, 1)[:7]),
}
NAMES = st.sampled_from(list(PAIRS))


def quick(examples: int):
    return running(max_examples=examples, deadline=None, derandomize=True, database=None)


@st.composite
def cuts(draw, n: int) -> list[slice]:
    edges = [0, *sorted(draw(st.sets(st.integers(1, n - 1)))), n]
    return [slice(*pair) for pair in zip(edges, edges[1:], strict=False)]


@quick(30)
@given(st.integers(2, 40), st.sampled_from(["lower", "upper"]), cuts(9), st.integers(0, 99), st.floats(-1e5, 1e5))
def test_parts_of_an_estimate_join_to_the_whole_and_a_shift_of_the_weights_shifts_it(samples, side, parts, seed, shift):
    log_w = 3 * torch.randn(samples, 9, generator=torch.Generator().manual_seed(seed)).double()
    whole = Estimate.of_weights("m", log_w, side)
    joined = Estimate.joined([Estimate.of_weights("m", log_w[:, part], side) for part in parts], 1.0, asked=9)
    for name in ("log_px", "log_px_se", "ess", "khat"):
        torch.testing.assert_close(getattr(joined, name), getattr(whole, name), equal_nan=True)
    assert joined.complete and joined.side == side
    assert joined.mean == pytest.approx(whole.mean) and joined.mean_se == pytest.approx(whole.mean_se)
    moved = Estimate.of_weights("m", log_w + shift, side)
    sign = -1 if side == "upper" else 1
    torch.testing.assert_close(moved.log_px, whole.log_px + sign * shift, atol=1e-8, rtol=1e-12)
    torch.testing.assert_close(moved.log_px_se, whole.log_px_se, atol=1e-8, rtol=1e-7)
    torch.testing.assert_close(moved.ess, whole.ess, atol=1e-8, rtol=1e-7)
    assert (1 - 1e-9 <= whole.ess).all() and (whole.ess <= samples + 1e-9).all()


def eager(seed: int) -> dict:
    return dict(seed=seed, engine="eager")


UNBIASED = {
    "prior sampling": lambda x, k, seed: room.prior_sampling(MODEL, x, k, seed=seed),
    "importance": lambda x, k, seed: room.importance(MODEL, BROAD, x, k, seed=seed),
    "defensive": lambda x, k, seed: room.defensive(MODEL, BROAD, x, max(k, 2), share=0.3, seed=seed),
    "annealed": lambda x, k, seed: room.annealed(MODEL, x, num_chains=k, temperatures=3, leaps=2, **eager(seed)),
    "annealed from a guide": lambda x, k, seed: room.annealed(
        MODEL, x, BROAD, num_chains=k, temperatures=3, leaps=2, **eager(seed)
    ),
}


def unbiased(method: str, k: int, seed: int, at: float) -> None:
    x = torch.full((800, 3), at)
    ratio = (UNBIASED[method](x, k, seed).log_px - MODEL.log_px(x[:1]).detach().double()).exp()
    assert (ratio.mean() - 1).abs() < 5 * ratio.std() / math.sqrt(len(ratio))


@pytest.mark.parametrize("method", ["prior sampling", "importance", "defensive"])
@quick(3)
@given(st.integers(1, 6), SEEDS, st.floats(-1.5, 1.5))
def test_the_mean_weight_of_any_number_of_particles_is_the_evidence(method, k, seed, at):
    unbiased(method, k, seed, at)


@pytest.mark.slow
@pytest.mark.parametrize("method", UNBIASED)
@quick(4)
@given(st.integers(1, 6), SEEDS, st.floats(-1.5, 1.5))
def test_and_so_for_many_more_and_along_chains(method, k, seed, at):
    unbiased(method, k, seed, at)


@pytest.mark.slow
@quick(3)
@given(st.integers(1, 6), st.integers(1, 5), SEEDS)
def test_reverse_chains_from_the_truth_have_the_inverse_of_the_evidence_in_mean(chains, temperatures, seed):
    simulated = room.simulate(MODEL, 800, seed=seed)
    settings = dict(num_chains=chains, temperatures=temperatures, leaps=2, **eager(seed))
    found = room.reverse_annealed(MODEL, simulated, **settings)
    ratio = (MODEL.log_px(*simulated.args).detach().double() - found.log_px).exp()
    assert found.side == "upper" and (ratio.mean() - 1).abs() < 5 * ratio.std() / math.sqrt(len(ratio))


@pytest.mark.slow
@quick(6)
@given(st.integers(1, 6), SEEDS, st.booleans(), st.integers(2, 9))
def test_a_bracket_holds_the_exact_value(n, seed, from_prior, rows):
    settings = dict(num_particles=40, num_chains=16, temperatures=10, leaps=2)  # fewer chains do not know their error
    found = room.sandwich(MODEL, BROAD, n, from_prior=from_prior, rows=rows, seed=seed, **settings)
    assert found.simulated and found.complete
    assert {row.num_data for row in found.rows.values()} == {n}
    for name, row in found.rows.items():
        excess, se = found.gap(name, "exact")
        wrong = excess if row.side == "lower" else -excess
        assert name == "CUBO" or wrong <= (6 * se if se == se else 3.0) + 1e-3, (name, excess, se)


@quick(25)
@given(st.integers(1, 50), SEEDS, NAMES)
def test_simulated_data_are_as_many_as_asked_for_and_the_seeds_own(n, seed, pair):
    model, _, like = PAIRS[pair]
    before = torch.get_rng_state()
    found, again = room.simulate(model, n, seed), room.simulate(model, n, seed, example=(like,))
    assert found.num_data == n and found.args[0].shape == (n, like.shape[1]) and found.values["z"].shape == (n, 2)
    assert torch.equal(found.args[0], again.args[0]) and torch.equal(found.values["z"], again.values["z"])
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(found.values["z"], room.simulate(model, n, (seed + 1) % 2**32).values["z"])


@quick(8)
@given(cuts(7), st.integers(1, 5), st.sampled_from([None, 1, 3, 100]), st.integers(1, 20), SEEDS, NAMES)
def test_the_two_views_add_up_and_are_the_same_for_data_in_any_batches(parts, k, aggregate, draws, seed, pair):
    model, guide, x = PAIRS[pair]
    settings = dict(num_particles=k, aggregate=aggregate, draws=draws, seed=seed)
    whole, cut = room.views(model, guide, x, **settings), room.views(model, guide, [x[p] for p in parts], **settings)
    assert whole.elbo.value == pytest.approx(-(whole.rate.value + whole.distortion.value), abs=1e-4)
    assert whole.rate.value == pytest.approx(sum(each.mean.value for each in whole.kl.values()), abs=1e-4)
    for name in ("elbo", "rate", "distortion", "information", "marginal_kl", "total_correlation", "unit_kl"):
        assert getattr(whole, name).value == pytest.approx(getattr(cut, name).value, abs=1e-6), name
    assert whole.information.value <= whole.most_information + 1e-6
    assert whole.components == min(aggregate or 7, 7)


@pytest.mark.slow
@quick(3)
@given(cuts(7), st.integers(1, 9), SEEDS, NAMES)
def test_gaps_are_differences_of_their_bounds(parts, rows, seed, pair):
    model, guide, x = PAIRS[pair]
    found = room.gaps(model, guide, [x[p] for p in parts], steps=3, num_particles=9, rows=rows, seed=seed)
    torch.testing.assert_close(found.total.values, found.approximation.values + found.amortisation.values)
    torch.testing.assert_close(found.amortisation.values, found.best.log_px - found.elbo.log_px)
    assert found.elbo.num_data == 7 and found.elbo.complete


@pytest.mark.slow
@quick(10)
@given(st.floats(0.1, 3), st.floats(0.1, 3), st.integers(1, 4), st.booleans(), st.integers(0, 99))
def test_a_gaussian_is_all_that_a_linear_model_of_one_latent_needs(weight, noise, rows, diagonal, seed):
    model = PPCA(torch.tensor([[weight]]).double(), torch.zeros(1).double(), noise)
    x = torch.linspace(-2, 2, 3).double()[:, None]
    torch.manual_seed(seed)
    guide = Diagonal(latents(model, x), MLP(1, 4)).double()
    found = room.exact_gaps(model, guide, x, diagonal=diagonal, rows=rows, points=600)
    torch.testing.assert_close(found.log_px.log_px, model.log_px(x).detach(), atol=1e-4, rtol=0)
    assert found.approximation.values.abs().max() < 1e-4 and (found.amortisation.values > -1e-6).all()


def test_a_posterior_far_from_the_prior_is_within_the_grid():
    model = PPCA(torch.full((1, 1), 0.25).double(), torch.zeros(1).double(), 0.125)
    x = torch.tensor([[2.0], [4.0]]).double()  # at 6.4 and 12.8 standard deviations of the prior
    torch.manual_seed(0)
    guide = Diagonal(latents(model, x), MLP(1, 4)).double()
    found = room.exact_gaps(model, guide, x, points=600)
    torch.testing.assert_close(found.log_px.log_px, model.log_px(x).detach(), atol=1e-6, rtol=0)


def test_a_grid_that_is_too_coarse_for_a_narrow_posterior_is_refused():
    model = PPCA(torch.ones(1, 1).double(), torch.zeros(1).double(), 0.02)
    x = torch.linspace(-2, 2, 5).double()[:, None]
    torch.manual_seed(0)
    guide = Diagonal(latents(model, x), MLP(1, 4)).double()
    with pytest.raises(ValueError, match="points must make a finer grid: leaving out every second of 160 changes"):
        room.exact_gaps(model, guide, x)


@quick(5)
@given(st.integers(20, 60), st.integers(2, 9), st.booleans(), st.integers(1, 99), SEEDS, NAMES)
def test_ranks_and_coverage_are_shares(num_data, k, weighted, rows, seed, pair):
    model, guide, _ = PAIRS[pair]
    found = room.calibration(model, guide, num_data, k, weighted=weighted, rows=rows, seed=seed)
    assert found.num_data == num_data and [row.name for row in found.rows] == ["z[0]", "z[1]", "log p(x, z)"]
    for row in found.rows:
        assert (0 <= row.u).all() and (row.u <= 1).all() and 0 <= row.p_value <= 1
        assert 0 <= row.ranks.min() and row.ranks.max() <= k
    shares = [found.coverage(level).value for level in (0.1, 0.5, 0.9, 0.999)]
    assert shares == sorted(shares) and 0 <= shares[0] and shares[-1] <= 1


@quick(6)
@given(st.floats(1e-3, 1e3), st.floats(-1e3, 1e3), st.integers(2, 30), st.integers(1, 40), SEEDS)
def test_a_scale_is_set_to_what_the_residuals_have(scale, loc, n, rows, seed):
    x = loc + torch.randn(n, 3, generator=torch.Generator().manual_seed(seed % 2**31))
    model = PPCA(torch.zeros(3, 2), torch.full((3,), loc), scale)
    guide = Diagonal(latents(model, x), MLP(3, 4))
    change = room.calibrate_scale(model, guide, x, 2, rows=rows, seed=seed)
    best = (x - loc).square().mean().sqrt()
    torch.testing.assert_close(change.after, best, atol=0, rtol=1e-3)
    assert change.gain.value >= -1e-3
    assert room.calibrate_scale(model, guide, x, 2, rows=rows, seed=seed).gain.value == pytest.approx(0, abs=1e-3)


@quick(8)
@given(st.integers(1, 12), st.integers(1, 40), st.integers(1, 5), SEEDS)
def test_every_pixel_is_in_a_bin(n, rows, k, seed):
    model, guide, _ = PAIRS["Bernoulli"]
    x = (torch.rand(n, 4, generator=torch.Generator().manual_seed(n)) > 0.5).float()
    found = room.decoder_report(model, guide, x, k, image_shape=(2, 2), rows=rows, seed=seed)
    assert found.bins.count.sum().item() == pytest.approx(4 * n) and found.num_data == n
    assert found.bins.seen.sum().item() == pytest.approx(x.sum().item(), rel=1e-5)
    assert found.overconfidence.value == pytest.approx(found.distortion.value - found.entropy.value, abs=1e-4)


def faulty(x=None, n=1):
    with pyro.plate("data", n if x is None else len(x)):
        raise ArithmeticError("of the user's own")


@pytest.mark.parametrize(
    "work", ["annealed", "enumerated", "prior_sampling", "quadrature", "views", "gaps", "calibration"]
)
def test_an_error_of_the_models_own_goes_through_and_leaves_nothing_behind(work):
    torch.manual_seed(3)
    before, wanted = torch.get_rng_state(), [p.requires_grad for p in BROAD.parameters()]
    call = {"views": lambda: room.views(faulty, BROAD, torch.zeros(2, 3))}
    call["gaps"] = lambda: room.gaps(faulty, BROAD, torch.zeros(2, 3))
    call["calibration"] = lambda: room.calibration(faulty, BROAD)
    with pytest.raises(ArithmeticError, match="of the user's own"):
        call.get(work, lambda: getattr(room, work)(faulty, torch.zeros(2, 3)))()
    assert (
        torch.equal(before, torch.get_rng_state()) and torch.is_grad_enabled() and not pyro.poutine.runtime._PYRO_STACK
    )
    assert wanted == [p.requires_grad for p in BROAD.parameters()] and BROAD.training
