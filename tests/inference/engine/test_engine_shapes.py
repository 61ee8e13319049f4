"""Batches of many sizes: each right, and a bounded number of graphs."""

from __future__ import annotations

import pytest
import torch
from pairs import pair
from pyro.infer import Trace_ELBO
from stepping import Adam, differing, run

from dlvm.inference import SVI


def engine_and_data():
    model, guide, (x,) = pair("positive")
    return SVI(model, guide, Adam, Trace_ELBO(), engine="captured"), x


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["auto", "captured"])
@pytest.mark.parametrize("sizes", [[6, 6, 6, 2] * 4, [1, 1, 2, 2, 3, 3, 1, 1]])
def test_batches_of_changing_size(engine, sizes, monkeypatch):
    monkeypatch.setattr("dlvm.inference.engine.engine.MOST_GRAPHS", 2)
    batches = [torch.randn(n, 4, generator=torch.Generator().manual_seed(n)) for n in sizes]

    def between(step, svi):
        return (batches[step - 1],)

    eager, other = (run(lambda: pair("positive"), Trace_ELBO, e, len(sizes), between) for e in ("eager", engine))
    assert differing(eager.state, other.state) == []


@pytest.mark.slow
def test_many_sizes_leave_a_bounded_number_of_graphs(monkeypatch):
    monkeypatch.setattr("dlvm.inference.engine.engine.MOST_GRAPHS", 2)
    svi, _ = engine_and_data()
    for n in (1, 1, 2, 2, 3, 4, 3, 4, 1, 1, 2, 2):
        svi.step(torch.randn(n, 4))
        assert len(svi._steps.kinds) <= 2
    assert [kind.captured is not None for kind in svi._steps.kinds.values()] == [True] * 2


def test_the_shapes_in_use_are_the_ones_kept(monkeypatch):
    """A full batch between odd ones is not recorded again and again."""
    monkeypatch.setattr("dlvm.inference.engine.engine.MOST_GRAPHS", 2)
    svi, x = engine_and_data()
    for _ in range(3):
        svi.step(x)
    first = next(iter(svi._steps.kinds.values())).captured
    for n in range(1, 4):
        svi.step(torch.randn(n, 4))
        svi.step(x)
    assert next(reversed(svi._steps.kinds.values())).captured is first is not None
