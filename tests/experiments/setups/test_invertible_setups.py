"""Invertible models as scripts train them: columns in their own units, dequantised images, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from dlvm.experiments.data import Loader, digits
from dlvm.experiments.options.guides import own
from dlvm.experiments.setups.nice import NICESetup
from dlvm.experiments.setups.realnvp import RealNVPSetup
from dlvm.experiments.setups.setup import fresh_pair
from dlvm.guides import Dequantiser, FullyObserved
from dlvm.inference import ELBO, evaluate, fit
from dlvm.models import Dequantised

SMALL = {
    "nice": NICESetup(hidden=(16,)),
    "realnvp": RealNVPSetup(depth=1, hidden=(16,), width=4, blocks=1, actnorm=True),
}


@pytest.fixture(params=SMALL)
def setup(request):
    return SMALL[request.param]


def test_columns_are_in_their_own_units(setup):
    """The same columns in other units have the same density, but for the change of units."""
    torch.manual_seed(0)
    x, scale = torch.randn(300, 3).cumsum(1), torch.tensor([1.0, 1e3, 1e-2])
    values = []
    for columns in (x, 5 + scale * x):
        torch.manual_seed(1)
        model, guide = fresh_pair(setup, Loader(columns), own, observed=True)
        assert isinstance(guide, FullyObserved) and model(n=4).shape == (4, 3)
        values.append(model.likelihood().log_prob(columns) + (0 if columns is x else scale.log().sum()))
    assert torch.allclose(*values, atol=1e-2)


def test_digits_are_grey_levels_whose_bits_fall(setup):
    splits = digits(binarize=None, batch_size=400)
    model, guide = fresh_pair(setup, splits.train, own, observed=True)
    assert isinstance(model, Dequantised) and model.levels == 17 and isinstance(guide, Dequantiser)
    adam = lambda parameters: torch.optim.Adam(parameters, lr=1e-2)  # noqa: E731
    first, second = fit(model, guide, ELBO(), splits.train, epochs=2, seed=0, optimizer=adam, progress=False)
    found = evaluate(model, guide, splits.test, num_particles=2)
    assert second.active == {}, "noise is no unit that could sleep"
    assert second.train > first.train and 0 < found.bits_per_dim < math.log2(17)
    assert set((model(n=3) * 16).frac().unique().tolist()) == {0.0}


def test_a_variational_dequantiser_is_trained(setup):
    learned = type(setup)(**{**vars(setup), "dequantiser": "variational"})
    model, guide = fresh_pair(learned, digits(binarize=None, batch_size=400).train, own, observed=True)
    x = digits(binarize=None).train.first(50)
    assert len(list(guide.parameters())) == 4 and evaluate(model, guide, x, num_particles=1).elbo < 0


def test_what_no_invertible_model_can_have_is_refused(setup):
    holes = torch.randn(5, 4).masked_fill(torch.eye(5, 4, dtype=torch.bool), torch.nan)
    with pytest.raises(ValueError, match="data have missing entries.*--model vae takes them"):
        setup.model(Loader(holes, missing=True))
    with pytest.raises(ValueError, match="grey levels are 0, 1 / 255"):
        setup.model(Loader(torch.rand(5, 16), image_shape=(4, 4)))


def test_images_of_odd_sides_are_refused_with_the_scales_that_fit():
    greys = Loader(torch.randint(0, 4, (20, 35)) / 3, image_shape=(5, 7))
    with pytest.raises(ValueError, match="shape has sides 5 and 7, which 2 scales halve 1 times; use 1 scale, or pad"):
        RealNVPSetup().model(greys)
    assert RealNVPSetup(scales=1, width=4).model(greys)(n=2).shape == (2, 35)


@pytest.mark.slow
def test_pictures_are_data_and_draws(setup):
    for data in (digits(binarize=None).test, Loader(torch.randn(50, 2))):
        model, guide = fresh_pair(setup, data, own, observed=True)
        ((name, draw, caption),) = setup.pictures(model, guide, data)
        assert name == ("samples" if data.x_dim == 64 else "plane") and caption == "Test data, and draws of the model."
        assert draw().axes
