"""A capture is paid where the steps to come repay it: its price is told from one ordinary step."""

from __future__ import annotations

import time

import pytest
import torch

from dlvm.inference.engine.cache import Kind
from dlvm.inference.engine.policy import Policy


def test_a_capture_that_the_steps_to_come_do_not_repay_is_not_made_and_it_is_said():
    said = []
    policy = Policy("auto", 400, True, said.append)
    assert not policy.captures(Kind(seen=3, repaid=500), done=3, odd=False)
    assert said == ["eager, since a capture repays after 500 steps, and 397 are to come"]
    assert policy.captures(Kind(seen=3, repaid=300), done=3, odd=False)
    assert not policy.captures(Kind(seen=60, repaid=300), done=120, odd=False)  # half of 280
    assert Policy("captured", 400, True, said.append).captures(Kind(seen=3, repaid=500), done=3, odd=False)


def test_it_is_priced_once_where_it_is_known_how_many_steps_come():
    policy = Policy("auto", 400, True, print)
    assert policy.prices(Kind(seen=2), 2) and not policy.prices(Kind(seen=3), 3)
    assert not policy.prices(Kind(seen=2, repaid=7), 2) and not policy.prices(Kind(seen=2), 350)
    assert not Policy("auto", None, True, print).prices(Kind(seen=2), 2)
    assert not Policy("captured", 400, True, print).prices(Kind(seen=2), 2)


@pytest.mark.parametrize("operations", [500, 5000])
def test_the_price_grows_with_the_operations_and_what_is_saved_with_the_time_of_a_step(operations):
    x, kinds = torch.ones(3), (Kind(seen=2), Kind(seen=2))

    def many() -> tuple:
        for _ in range(operations):
            x.add(1.0)
        return [], []

    def slow() -> tuple:
        started = time.process_time()
        while time.process_time() < started + 0.2:
            pass
        return many()

    policy = Policy("auto", 10_000, True, print)
    policy.price(Kind(), many)  # what torch loads the first time
    for kind, run in zip(kinds, (many, slow), strict=True):
        assert policy.price(kind, run) == ([], [])
    assert kinds[1].repaid <= 3.3e-4 * operations / (0.35 * 0.2) + 1 < kinds[0].repaid
