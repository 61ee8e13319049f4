"""Which arguments of a batch have a row for each datum, how these are cut, and how batches are joined."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

from dlvm.inference.programs.pair import Pair
from dlvm.inference.programs.rows import DataCount, gathered, rows_of, split

X, LABELS, WEIGHTS = torch.arange(10.0).reshape(5, 2), torch.arange(5), torch.arange(3.0)
ARGS = (X, LABELS, WEIGHTS, torch.tensor(2.0), None, "word")


def test_arguments_with_a_row_for_each_datum_are_cut_and_the_others_go_along():
    x, labels, *others = rows_of(ARGS, torch.tensor([4, 0]))
    assert torch.equal(x, X[[4, 0]]) and labels.tolist() == [4, 0]
    assert all(a is b for a, b in zip(others, ARGS[2:], strict=True))
    assert [len(part[1]) for part in split(ARGS, 2)] == [2, 2, 1]
    assert torch.equal(torch.cat([part[0] for part in split(ARGS, 2)]), X)
    assert [len(a) for a in rows_of(ARGS, slice(0, 1))[:3]] == [1, 1, 3]


def test_batches_are_joined_and_what_has_no_rows_is_that_of_the_first():
    x, labels, weights, *others = gathered([part for part in split(ARGS, 2)])
    assert torch.equal(x, X) and torch.equal(labels, LABELS) and weights is WEIGHTS
    assert others == list(ARGS[3:])
    with pytest.raises(ValueError, match="same shapes in all batches"):
        gathered([(X,), (X[:, :1],)])
    with pytest.raises(ValueError, match="hold no batch"):
        gathered([])


@pytest.mark.parametrize("full, expected", [(None, 5.0), (60, 60.0)])
def test_a_batch_counts_for_its_data_or_for_all_that_it_is_drawn_from(full, expected):
    calls = []

    def model(x):
        calls.append(len(x))
        with pyro.plate("data", full or len(x), subsample_size=len(x) if full else None):
            pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1), obs=x)

    count = DataCount(Pair(model))
    assert [count((X,)), count((X,))] == [expected] * 2 and calls == [5]
    assert count((X[:2],)) == (60.0 if full else 2.0) and calls == [5, 2]
    assert count.share((X[:2],)) == pytest.approx(2 / 60 if full else 1.0) and calls == [5, 2]
