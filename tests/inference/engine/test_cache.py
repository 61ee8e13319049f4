"""Audits of a graph and of what it was compiled to: what is a fault, and what is rounding."""

from __future__ import annotations

import pytest
import torch

from dlvm.inference.engine.cache import STEPS_BETWEEN_AUDITS, Kind


@pytest.fixture(autouse=True)
def audited():
    """When a step is audited is asked here, and not switched off."""


class TwoWays:
    """A captured step whose graph gives the programs' numbers, and whose compiled graph does so or not."""

    def __init__(self):
        self.apart = 0.0

    def replay(self):
        return [1.0], [torch.ones(100)]

    def run(self):
        return [1.0], [torch.ones(100) + self.apart]

    def __call__(self, tensors, run):
        return run()


@pytest.mark.parametrize("gaps, found", [([0.05, 0.0, 0.05], []), ([0.0, 0.05, 0.05], [0.05]), ([0.005] * 3, [])])
def test_a_compiled_step_that_is_off_by_a_kink_is_looked_at_again_at_once(gaps, found):
    captured = TwoWays()
    kind = Kind(replays=STEPS_BETWEEN_AUDITS + 1)
    told = []
    for gap in gaps:
        captured.apart = gap
        _, at = kind.audit(captured, [], captured.replay)
        told += [at] if at else []
        assert kind.audited_now == (gap > 0.01)
    assert told == pytest.approx(found)


def test_a_graph_that_is_off_is_not_given_another_chance():
    _, gap = Kind().audit(TwoWays(), [], lambda: ([1.0], [torch.full((100,), 1.01)]))
    assert gap == pytest.approx(0.01, rel=0.02)
