"""Threads that stay on their cores, as long as they are told to."""

import os

import pytest
import torch

from dlvm.inference.engine.threads import settled

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores and a system with affinities")
def test_each_thread_has_a_core_of_its_own_and_gets_the_others_back():
    before, allowed = torch.get_num_threads(), os.sched_getaffinity(0)
    with settled(2):
        assert torch.get_num_threads() == 2
        assert len(os.sched_getaffinity(0)) == 1
        alone = [cores for cores in _cores() if len(cores) == 1]
        assert {CORES[0]} in alone and {CORES[1]} in alone
    assert torch.get_num_threads() == before and os.sched_getaffinity(0) == allowed
    assert all(len(cores) > 1 for cores in _cores())


def test_one_thread_is_left_where_it_is():
    before = torch.get_num_threads()
    with settled(1):
        assert torch.get_num_threads() == 1
        assert not CORES or os.sched_getaffinity(0) == set(CORES)
    assert torch.get_num_threads() == before


def test_an_error_inside_unsettles_as_well():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), settled(before + 1):
        raise KeyError
    assert torch.get_num_threads() == before


def test_no_thread_at_all_is_refused():
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"), settled(0):
        pass


def _cores() -> list[set[int]]:
    return [os.sched_getaffinity(int(thread)) for thread in os.listdir("/proc/self/task")]
