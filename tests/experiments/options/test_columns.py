"""Columns of several kinds, grey levels under densities, and maps: what each setup makes of a likelihood's word."""

from __future__ import annotations

import math

import pyro
import pytest
import torch

from dlvm.distributions import LogisticNoise, Missing, Product
from dlvm.experiments.data import Loader
from dlvm.experiments.options.columns import words_of
from dlvm.experiments.options.starts import shared_units_of, within_cells
from dlvm.experiments.setups.discrete_vae import DiscreteVAESetup
from dlvm.experiments.setups.hvae import HVAESetup
from dlvm.experiments.setups.setup import fresh_pair
from dlvm.experiments.setups.top_down import TopDownSetup
from dlvm.experiments.setups.vae import VAESetup
from dlvm.guides import Dequantiser, Diagonal
from dlvm.inference import ELBO, evaluate, fit
from dlvm.models import Dequantised

N = 120
KINDS = torch.stack([torch.arange(N) % 2.0, torch.randn(N), torch.arange(N) % 5.0, torch.arange(N) * 3.0], 1)
NAMES = ("sex", "size", "grade", "visits")


def table(x: torch.Tensor = KINDS) -> Loader:
    return Loader(x, batch_size=60, columns=NAMES, missing=bool(x.isnan().any()))


def test_each_column_has_the_likelihood_of_its_numbers_unless_told():
    assert words_of(table()) == {"bernoulli": [0], "normal": [1], "categorical": [2], "negative_binomial": [3]}
    told = words_of(table(), ["grade=ordinal", "visits=normal"])
    assert told == {"bernoulli": [0], "normal": [1, 3], "ordinal": [2]}
    holed = KINDS.clone()
    holed[::3] = math.nan
    assert words_of(table(holed)) == words_of(table())


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"likelihood": "mixed", "by_column": ("age=normal",)}, "columns are sex, size, grade, visits"),
        ({"likelihood": "mixed", "by_column": ("sex=normal", "sex=laplace")}, "once each"),
        ({"likelihood": "mixed", "by_column": ("size=poisson",)}, "poisson is of counts"),
        ({"likelihood": "mixed", "by_column": ("sex=logistic_mixture",)}, "all columns alike"),
        ({"likelihood": "normal", "by_column": ("sex=normal",)}, "say --likelihood mixed"),
        ({"likelihood": "categorical", "dequantise": "uniform"}, "gives probabilities already"),
        ({"likelihood": "normal", "dequantise": "uniform"}, "grey levels lie between 0 and 1"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(settings, said):
    with pytest.raises(ValueError, match=said):
        fresh_pair(VAESetup(2, (4,), **settings), table(), Diagonal)


@pytest.mark.parametrize("setup", [DiscreteVAESetup(4), HVAESetup(), TopDownSetup(4), VAESetup()])
@pytest.mark.parametrize(
    "x, said",
    [
        (torch.arange(64.0).expand(20, 64), "counts: --likelihood negative_binomial"),
        (torch.rand(20, 64), "grey levels: --binarize dynamic"),
        (torch.randn(20, 64), "real numbers: --likelihood normal"),
    ],
)
def test_no_model_takes_other_than_bits_for_bernoullis(setup, x, said):
    with pytest.raises(ValueError, match=f"bernoulli is of 0 and 1 alone.*{said}"):
        setup.model(Loader(x))


@pytest.mark.parametrize("setup", [VAESetup(2, (8,), likelihood="mixed"), HVAESetup((2, 2), (8,), likelihood="mixed")])
def test_mixed_tables_with_holes_train_and_draws_are_of_each_columns_kind(setup):
    x = KINDS.clone()
    x[::4, 1], x[1::4, 3] = math.nan, math.nan
    pyro.set_rng_seed(0)
    model, guide = fresh_pair(setup, table(x), Diagonal)
    assert isinstance(model.likelihood, Missing) and isinstance(model.likelihood.likelihood, Product)
    first, *_, last = fit(model, guide, ELBO(), table(x), epochs=4, seed=0, engine="eager", progress=False)
    assert last.train > first.train and evaluate(model, guide, x, num_particles=5).density
    drawn = model(n=50)
    assert set(drawn[:, 0].tolist()) <= {0, 1} and drawn[:, 2].max() < 5 and (drawn[:, 3] == drawn[:, 3].round()).all()


GREYS = Loader(torch.randint(0, 17, (N, 16)) / 16, batch_size=60, image_shape=(4, 4))


@pytest.mark.parametrize(
    "setup",
    [
        VAESetup(2, (8,), likelihood="normal", dequantise="variational"),
        HVAESetup((2, 2), (8,), likelihood="laplace", dequantise="uniform"),
        TopDownSetup(4, (4,), 8, likelihood="beta", dequantise="variational"),
    ],
)
def test_grey_levels_under_a_density_are_worth_a_probability(setup):
    pyro.set_rng_seed(0)
    model, guide = fresh_pair(setup, GREYS, Diagonal)
    assert isinstance(model, Dequantised) and model.levels == 17 and isinstance(guide, Dequantiser)
    assert isinstance(guide.posterior, LogisticNoise) == (setup.dequantise == "variational")
    list(fit(model, guide, ELBO(), GREYS, epochs=2, seed=0, engine="eager", progress=False))
    found = evaluate(model, guide, GREYS.x, num_particles=10)
    assert not found.density and found.log_px < 0 and found.bits_per_dim < 2 * math.log2(17)


def test_numbers_within_cells_have_the_cells_places_and_one_scale_is_the_root_of_mean_variances():
    y = within_cells(GREYS).x
    assert torch.equal((y * 17).floor(), (GREYS.x * 16).round()) and torch.equal(y, within_cells(GREYS).x)
    x = torch.tensor([[0.0, 5.0, 1.0], [2.0, 5.0, 5.0]])
    units = shared_units_of(x)  # the constant column says nothing
    assert units.scale.tolist() == pytest.approx([2.5**0.5] * 3) and units.loc.tolist() == [1, 5, 3]


@pytest.mark.parametrize("word", ["normal", "grey_levels", "logistic_mixture"])
def test_the_numbers_of_a_pixel_come_from_its_place_in_the_maps(word):
    """A change of the last maps' corner changes the distributions of pixels near it alone."""
    x = torch.randint(0, 4, (N, 64)) / 3
    data = Loader(x, batch_size=60, image_shape=(8, 8))
    pyro.set_rng_seed(0)
    likelihood = TopDownSetup(4, likelihood=word).model(data).likelihood.eval()
    state = torch.randn(4, 4, 4)
    other = state.clone()
    other[:, 0, 0] += 1
    before, after = (likelihood(s).base_dist.log_prob(x[0]) for s in (state, other))
    changed = (before - after).abs().view(8, 8) > 1e-6
    assert changed[:4, :4].all() and not changed[4:].any() and not changed[:, 4:].any()
