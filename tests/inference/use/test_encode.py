"""Codes against exact posteriors; rows in order, whatever they are cut into."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from dlvm.distributions import StandardNormal
from dlvm.guides import IAF, Diagonal, latents
from dlvm.inference import encode, predict
from dlvm.inference.use import encode as module
from dlvm.models import burda
from dlvm.nets import MLP

from .pairs import CLASSES, LINEAR, MIXTURE, POINTS, TABLE, Table, X, guess, posterior, shifted


def test_an_exact_posterior_has_its_own_moments_and_no_error():
    code, exact = encode(LINEAR, posterior, X, num_draws=3)["z"], LINEAR.posterior(X)
    assert code.exact and (code.mean_se == 0).all() and (code.sd_se == 0).all()
    torch.testing.assert_close(code.mean, exact.loc, rtol=0, atol=1e-6)
    torch.testing.assert_close(code.sd, exact.stddev, rtol=0, atol=1e-6)
    assert code.draws.shape == (3, 23, 2) and code.probabilities is None


def test_a_site_below_another_draw_has_an_error_and_is_within_it():
    """z ~ N(u, s), u ~ N(m, 0.3): mean m, variance 0.09 + s^2."""
    code, exact = encode(LINEAR, shifted, X, num_particles=200)["z"], LINEAR.posterior(X)
    assert not code.exact
    z = (code.mean - exact.loc) / code.mean_se
    assert 0.8 < z.square().mean() < 1.3 and z.abs().max() < 4
    sd = (0.09 + torch.tensor([0.4, 0.2]).square()).sqrt()
    z = (code.sd - sd) / code.sd_se
    assert 0.7 < z.square().mean() < 1.4 and z.abs().max() < 4.5
    torch.testing.assert_close(code.mean_se, torch.full_like(code.mean_se, 0.3 / 200**0.5), rtol=0.25, atol=0)


def test_a_spread_that_depends_on_a_draw_is_not_exact():
    """z ~ N(0, exp(a)), a ~ N(0, 0.1): the mean is 0 in every run, the variance exp(0.02)."""

    def program(x, n=1):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 0.1))
            z = pyro.sample("z", dist.Normal(0.0, a.exp()))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    code = encode(program, pyro.poutine.block(program, hide=["x"]), torch.zeros(5))["z"]
    assert not code.exact and (code.mean == 0).all() and (code.sd_se > 0).all()
    assert ((code.sd - math.exp(0.01)).abs() < 5 * code.sd_se).all()


@pytest.mark.parametrize("draws", [3, 4])
def test_draws_are_an_array_even_if_they_are_as_many_as_the_rows_of_the_table(draws):
    table = Table(POINTS[:3].numpy(), "abc", ["u", "v"])
    for found in (encode(MIXTURE, guess, table, num_draws=draws)["y"], predict(MIXTURE, guess, table, "y", 9, draws)):
        assert isinstance(found.draws, np.ndarray) and found.draws.shape == (draws, 3)


def test_a_flow_is_known_by_its_draws():
    guide = IAF(latents(LINEAR, X), MLP(4, 8))
    code = encode(LINEAR, guide, X, num_particles=50, num_draws=50)["z"]
    assert not code.exact
    torch.testing.assert_close(code.mean, code.draws.mean(0))
    torch.testing.assert_close(code.sd, code.draws.std(0))
    torch.testing.assert_close(code.mean_se, code.sd / math.sqrt(50))


def test_a_class_has_probabilities_and_no_mean():
    code = encode(MIXTURE, guess, POINTS)["y"]
    torch.testing.assert_close(code.probabilities, 0.7 * MIXTURE.posterior(POINTS) + 0.1)
    assert code.mean is None and code.sd_se is None and code.exact and code.values.tolist() == [0, 1, 2]


def test_bits_have_both():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.full((3,), 0.5)).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli((x + torch.arange(3)).sigmoid()).to_event(1))

    x = torch.linspace(-1, 1, 5)[:, None]
    code, p = encode(model, guide, x)["z"], (x + torch.arange(3)).sigmoid()
    torch.testing.assert_close(code.mean, p)
    torch.testing.assert_close(code.probabilities, torch.stack([1 - p, p], -1))


def test_angles_go_round():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.VonMises(torch.zeros(()), torch.ones(())))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.VonMises(torch.tensor(math.pi - 0.05), torch.tensor(50.0)))

    code = encode(model, guide, torch.zeros(4), num_particles=200)["z"]
    away = torch.remainder(code.mean - (math.pi - 0.05) + math.pi, 2 * math.pi) - math.pi
    assert ((away / code.mean_se).abs() < 4).all() and ((code.sd - 0.142).abs() < 5 * code.sd_se).all()


def test_rows_are_in_order_and_the_same_in_whatever_pieces(monkeypatch):
    """Where moments are exact; draws are those of the pieces that the width of x alone says."""
    whole = encode(LINEAR, posterior, X)["z"]
    monkeypatch.setattr(module, "NUMBERS_AT_ONCE", 4 * 7)
    pieces = encode(LINEAR, posterior, X)["z"]
    torch.testing.assert_close(pieces.mean, whole.mean, rtol=0, atol=1e-6)
    assert pieces.draws.shape == whole.draws.shape
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encode(LINEAR, posterior, X[order])["z"].mean, whole.mean[order], rtol=0, atol=1e-6)


def test_what_comes_in_goes_out():
    tensor = encode(LINEAR, posterior, X)["z"].mean
    array = encode(LINEAR, posterior, X.double().numpy())["z"]
    assert isinstance(array.mean, np.ndarray) and array.draws.shape == (1, 23, 2)
    np.testing.assert_array_equal(array.mean, tensor.numpy())
    table = encode(LINEAR, posterior, TABLE)["z"].mean
    assert table.index == TABLE.index and table.columns == ["z_0", "z_1"]
    np.testing.assert_array_equal(table.numbers, tensor.numpy())


def test_whole_numbers_are_taken_by_nets_of_floats():
    counts = (X * 3).round().int().numpy()
    guide = Diagonal(latents(LINEAR, X), MLP(4, 8))
    codes = [encode(LINEAR, guide, x)["z"].mean for x in (counts, torch.tensor(counts).float().numpy())]
    np.testing.assert_array_equal(*codes)


def test_a_hierarchy_has_a_code_for_each_layer():
    model, x = burda(6, (4, 2), (8, 8)), (X[:, [0, 1, 2, 3, 0, 1]] > 0).float()
    found = encode(model, Diagonal(latents(model, x), MLP(6, 8)), x)
    assert {name: tuple(code.mean.shape) for name, code in found.items()} == {"z2": (23, 2), "z1": (23, 4)}
    assert found["z2"].exact and not found["z1"].exact  # top-down: z1 is drawn given z2


def test_data_in_inner_plates_stand_by_row():
    """Five groups along the second plate dimension, three members each: one row for each group."""

    def model(x):
        with pyro.plate("groups", len(x), dim=-2):
            a = pyro.sample("a", dist.Normal(torch.zeros(()), 1.0))
            with pyro.plate("members", 3, dim=-1):
                b = pyro.sample("b", dist.Normal(a, 1.0))
                pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    def guide(x):
        with pyro.plate("groups", len(x), dim=-2):
            pyro.sample("a", dist.Normal(x.mean(-1, keepdim=True), 1.0))
            with pyro.plate("members", 3, dim=-1):
                pyro.sample("b", dist.Normal(2 * x, 1.0))

    x = torch.arange(15.0).reshape(5, 3)
    found = encode(model, guide, x)
    torch.testing.assert_close(found["a"].mean, x.mean(-1))
    torch.testing.assert_close(found["b"].mean, 2 * x)


def test_randomness_and_modes_stay_as_they_were():
    guide = Diagonal(latents(LINEAR, X), MLP(4, 8))
    guide.train()
    before = torch.get_rng_state()
    first, second, other = (encode(LINEAR, guide, X, seed=seed)["z"].draws for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state()) and guide.training
    assert torch.equal(first, second) and not torch.equal(first, other)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (X[:, :3], "make the likelihood's width that of the data"),
        ((X, X, X), "x must hold the arguments of the model, x, got 3"),
        ([[1.0]], "pass torch.as_tensor"),
        (np.array([["a"] * 4]), "must hold real numbers"),
        (torch.full_like(X, torch.nan), "remove NaN"),
    ],
)
def test_what_does_not_fit_is_refused(x, said):
    with pytest.raises((ValueError, TypeError), match=said):
        encode(LINEAR, posterior, x)


def test_text_in_a_table_is_named():
    table = type(TABLE)(TABLE.numbers, TABLE.index, TABLE.columns)
    table.dtypes[2].kind = "O"
    with pytest.raises(TypeError, match=r"got text or dates in c; .*drop\(columns=\['c'\]\)"):
        encode(LINEAR, posterior, table)


def test_a_guide_of_another_model_is_refused():
    def nothing(x, n=1):
        with pyro.plate("data", len(x)):
            pyro.sample("other", StandardNormal(2)())

    with pytest.raises(ValueError, match="guide draws the sites 'other', none of which"):
        encode(LINEAR, nothing, X)


def test_a_site_of_the_model_alone_has_no_code():
    assert CLASSES.sum() == 1 and list(encode(LINEAR, shifted, X)) == ["z"]
