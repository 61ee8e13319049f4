"""One pass over data: what is done, what is left after Ctrl-C, and what the bar is told."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dlvm.inference.console import bar
from dlvm.inference.programs.chunks import walk
from dlvm.inference.programs.pair import Pair, draws_nothing
from dlvm.inference.programs.rows import split, width_of

ALONE = Pair(draws_nothing)


class Sized:
    """Batches of 4, 4 and 2 data that know how many they are; as a loader does, or as a torch DataLoader does."""

    def __init__(self, **known):
        self.__dict__.update(known)

    def __len__(self):
        return 3

    def __iter__(self):
        return iter(torch.zeros(10, 2).split(4))


@pytest.mark.parametrize(
    "data, asked",
    [
        (torch.zeros(10, 2), 10),
        (list(torch.zeros(10, 2).split(4)), 10),
        (Sized(num_data=10), 10),
        (Sized(), 12),  # as many as if no batch were smaller than the first
        (iter(torch.zeros(10, 2).split(4)), 7),
    ],
    ids=["tensor", "list", "counted", "sized", "generator"],
)
def test_ctrl_c_leaves_what_was_done_and_says_out_of_how_many(data, asked):
    done = []

    def work(part, tick):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(len(part[0]))

    walked = walk(data, ALONE, 2, work)
    assert (walked.done, walked.asked, walked.complete) == (6, asked, False)


def test_ctrl_c_before_the_first_datum_goes_on():
    def work(part, tick):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        walk(torch.zeros(3, 2), ALONE, 2, work)


@pytest.mark.parametrize("data", [Sized(), Sized(num_data=10), torch.zeros(10, 2)])
def test_a_whole_pass_is_of_all_data_however_many_were_expected(data):
    seen = []
    walked = walk(data, ALONE, lambda args: len(args[0]) // 2, lambda part, tick: seen.append(len(part[0])))
    assert walked.done == walked.asked == sum(seen) == 10 and walked.complete


def test_work_draws_from_the_seed_in_evaluation_mode_and_leaves_both_as_they_were():
    net, drawn = nn.Dropout(), []

    def work(part, tick):
        drawn.append((net.training, torch.rand(()).item()))

    state = torch.get_rng_state()
    for _ in range(2):
        walk(torch.zeros(2, 2), Pair(net), 1, work, seed=3)
    assert torch.equal(torch.get_rng_state(), state) and net.training
    assert drawn[:2] == drawn[2:] and not any(training for training, _ in drawn)


def test_shares_of_long_work_move_the_bar_by_the_data_at_work(monkeypatch):
    shown, seen = [], []
    monkeypatch.setattr("dlvm.inference.programs.chunks.bar", lambda show: shown.append(bar(show)) or shown[-1])

    def work(part, tick):
        for _ in range(2):
            tick(0.5)
            seen.append(shown[-1].tasks[0].completed)

    walk(torch.zeros(3, 2), ALONE, 2, work, text="thinking")
    assert seen == [1, 2, 2.5, 3]
    assert (shown[-1].tasks[0].total, shown[-1].tasks[0].description) == (3, "thinking")


def test_what_has_a_row_per_datum_is_split_and_the_rest_goes_along():
    y, table, name = torch.arange(3), torch.zeros(7, 2), "x"
    parts = list(split((torch.zeros(3, 5, 2), y, table, name), 2))
    assert [part[1].tolist() for part in parts] == [[0, 1], [2]]
    assert all(part[2] is table and part[3] is name for part in parts)
    assert width_of((torch.zeros(3, 5, 2), y, table, name)) == 10
    assert width_of((y,)) == 1
