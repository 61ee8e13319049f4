"""What an autoregressive model takes the numbers in data for, and which it refuses."""

from __future__ import annotations

import math

import pytest
import torch

from dlvm.distributions import Bits, Greys, Tokens
from dlvm.experiments.data import Loader
from dlvm.experiments.options.variables import dim_of, element_of, picture_shape, start_of

BITS = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
TEXT = Loader(torch.tensor([[2, 1, 0], [1, 0, 0]]), kind="sequence", vocabulary=("<end>", "a", "b", "c"))


def test_what_a_variable_is():
    assert element_of("bits", Loader(BITS)) == Bits()
    assert element_of("greys", Loader(BITS / 2 + torch.eye(3) / 2)) == Greys(3)
    assert element_of("bits", Loader(BITS * 4)) == Tokens(5)
    assert element_of("bits", TEXT) == Tokens(4) and dim_of(TEXT) == 3


@pytest.mark.parametrize(
    "word, data, words",
    [
        ("bits", Loader(BITS / 2), "--binarize dynamic makes bits, and --variables greys"),
        ("greys", Loader(BITS - 0.3), "grey levels lie between 0 and 1"),
        ("bits", Loader(BITS.where(BITS == 0, math.nan), missing=True), "leaving one out is no marginal"),
        ("bits", Loader(torch.zeros(2, 3, 4), kind="sequence"), "must be sequences of tokens, got x of shape"),
    ],
)
def test_what_is_none_is_refused_with_the_remedy(word, data, words):
    with pytest.raises(ValueError, match=words):
        element_of(word, data)


def test_a_net_starts_from_each_variables_own_frequencies():
    start = start_of(Bits(), Loader(BITS)).squeeze(-1)
    torch.testing.assert_close(start.sigmoid(), torch.tensor([1e-3, 2 / 3, 1 - 1e-3]))
    found = start_of(Tokens(4), TEXT).exp()
    torch.testing.assert_close(found.sum(-1), torch.ones(3))
    torch.testing.assert_close(found[0], torch.tensor([0.5, 1.5, 1.5, 0.5]) / 4)


def test_pixels_are_those_of_images():
    assert picture_shape(Loader(torch.zeros(2, 6), image_shape=(2, 3))) == (1, 2, 3)
    assert picture_shape(Loader(torch.zeros(2, 18), image_shape=(3, 2, 3))) == (3, 2, 3)
    with pytest.raises(ValueError, match="must be images, for a net that convolves over pixels, got 3 columns"):
        picture_shape(Loader(BITS))
