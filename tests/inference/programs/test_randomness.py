"""Private random streams: entered and left at will, and never felt outside."""

from __future__ import annotations

import random

import numpy as np
import pyro
import pytest
import torch

from dlvm.inference.programs.randomness import Stream, generator_state, restore_generators, untouched


def draw() -> tuple[float, float, float]:
    """One number from each of the generators that Pyro seeds."""
    return torch.rand(1).item(), float(np.random.rand()), random.random()


def seeded(seed: int, count: int = 1) -> list[tuple[float, float, float]]:
    pyro.set_rng_seed(seed)
    return [draw() for _ in range(count)]


def test_untouched_leaves_all_three_generators_as_they_were():
    expected = seeded(3, 2)
    pyro.set_rng_seed(3)
    first = draw()
    with untouched():
        draw()
    assert [first, draw()] == expected


def test_untouched_goes_on_from_where_the_process_is_or_from_its_seed():
    third = seeded(3, 2)[1]
    pyro.set_rng_seed(3)
    draw()
    with untouched():
        assert draw() == third
    with untouched(7):
        inside = draw()
    assert inside == seeded(7)[0]


def test_untouched_restores_after_an_error_and_nests():
    expected = seeded(3)[0]
    pyro.set_rng_seed(3)
    with pytest.raises(KeyError), untouched(7):
        draw()
        raise KeyError
    with untouched(8):
        outer = draw()
        with untouched(9):
            draw()
        assert draw() != outer
    assert draw() == expected
    with untouched(8):
        assert [draw(), draw()] == seeded(8, 2)


def test_a_state_that_was_kept_can_be_gone_back_to():
    seeded(3)
    state = generator_state()
    a = draw()
    draw()
    restore_generators(state)
    assert draw() == a


def test_a_stream_goes_on_where_it_was_left():
    expected = seeded(5, 3)
    stream, found = Stream(5), []
    for _ in range(3):
        with stream:
            found.append(draw())
        draw()
    assert found == expected


def test_streams_neither_see_nor_disturb_each_other_or_the_process():
    alone = {seed: seeded(seed, 3) for seed in (1, 2, 3)}
    pyro.set_rng_seed(3)
    streams, found = {1: Stream(1), 2: Stream(2)}, {1: [], 2: [], 3: []}
    for _ in range(3):
        found[3].append(draw())
        for seed, stream in streams.items():
            with stream:
                found[seed].append(draw())
    assert found == alone


def test_a_stream_keeps_its_place_through_an_error():
    expected, outside = seeded(5, 2), seeded(3)[0]
    pyro.set_rng_seed(3)
    stream = Stream(5)
    with pytest.raises(KeyError), stream:
        first = draw()
        raise KeyError
    assert draw() == outside
    with stream:
        assert [first, draw()] == expected


def test_a_stream_without_a_seed_is_that_of_the_process():
    expected = seeded(3, 3)
    pyro.set_rng_seed(3)
    stream, found = Stream(None), [draw()]
    with stream:
        found.append(draw())
    assert [*found, draw()] == expected


def test_making_a_stream_draws_nothing():
    expected = seeded(3)[0]
    pyro.set_rng_seed(3)
    Stream(5)
    assert draw() == expected
