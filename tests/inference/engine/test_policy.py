"""A capture is paid where the steps to come repay it: its price is told from two ordinary steps."""

from __future__ import annotations

import math
import time
from functools import partial

import pytest
import torch

from dlvm.inference.engine import policy as policies
from dlvm.inference.engine.cache import Kind
from dlvm.inference.engine.engine import Engine
from dlvm.inference.engine.policy import Policy


def test_a_capture_that_the_steps_to_come_do_not_repay_is_not_made_and_it_is_said():
    said = []
    policy = Policy("auto", 400, True, said.append)
    assert not policy.captures(Kind(seen=3, repaid=500), done=3, odd=False)
    assert said == ["eager, since a capture repays after 500 steps, and 397 are to come"]
    assert policy.captures(Kind(seen=3, repaid=300), done=3, odd=False)
    assert not policy.captures(Kind(seen=60, repaid=300), done=120, odd=False)  # half of 280
    assert Policy("captured", 400, True, said.append).captures(Kind(seen=3, repaid=500), done=3, odd=False)


def test_it_is_priced_in_two_calls_where_it_is_known_how_many_steps_come():
    policy = Policy("auto", 400, True, print)
    assert policy.prices(Kind(seen=2), 2) and policy.prices(Kind(seen=3), 3) and not policy.prices(Kind(seen=4), 4)
    assert not policy.prices(Kind(seen=2, repaid=7), 2) and not policy.prices(Kind(seen=2), 350)
    assert not Policy("auto", None, True, print).prices(Kind(seen=2), 2)
    assert not Policy("captured", 400, True, print).prices(Kind(seen=2), 2)


def test_a_price_is_a_capture_of_its_operations_by_what_an_ordinary_call_has_beside_them(monkeypatch):
    """With a clock that the test moves: ten operations of 2 ms each in a call of 50 ms; counting takes 1 ms of each."""
    now, x, in_all = [0.0], torch.ones(3), 0.05
    monkeypatch.setattr(policies.time, "process_time", lambda: now[0])
    monkeypatch.setattr(policies, "_costs_of_counting", lambda: (1e-3, 5e-4))
    policy, kind = Policy("auto", 10_000, True, print), Kind(seen=2)

    def plain() -> tuple:
        now[0] += in_all
        return [1], []

    class Counted(policies._Operations):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.number, self.seconds = self.number + 1, self.seconds + 2e-3 + 5e-4
            return func(*args, **(kwargs or {}))

    def counted() -> tuple:
        for _ in range(10):
            x.add(1.0)
        return [2], []

    monkeypatch.setattr(policies, "_Operations", Counted)
    assert policy.price(kind, plain) == ([1], []) and kind.ordinary == pytest.approx(0.05) and kind.repaid is None
    assert policy.price(kind, counted) == ([2], [])
    assert kind.repaid == math.ceil(32 * 1e-3 * 10 / (0.05 - 10 * 2.15e-3))
    all_kernels = Kind(seen=3, ordinary=0.02)  # nothing is left to save
    policy.price(all_kernels, counted)
    assert all_kernels.repaid == 800


def test_what_python_does_beside_the_operations_is_what_a_capture_saves():
    x, kinds = torch.ones(3), (Kind(seen=2), Kind(seen=2))

    def many() -> tuple:
        for _ in range(2000):
            x.add(1.0)
        return [], []

    def slow() -> tuple:
        started = time.process_time()
        while time.process_time() < started + 0.2:
            pass
        return many()

    policy = Policy("auto", 10_000, True, print)
    for kind, run in zip(kinds, (many, slow), strict=True):
        assert policy.price(kind, run) == policy.price(kind, run) == ([], [])
    assert 2 * kinds[1].repaid < kinds[0].repaid


class Graph:
    run, before = "compiled", "replay"


def test_a_graph_that_turns_out_slower_is_given_up_and_one_that_does_not_is_kept():
    said = []
    policy = Policy("auto", 400, True, said.append)
    slow = Kind(captured=Graph(), replays=policies.STEPS_TO_COMPARE, seconds=0.3, usual=0.2)
    for kind in (slow, Kind(captured=Graph(), replays=policies.STEPS_TO_COMPARE, seconds=0.1, usual=0.2)):
        policy.reconsider(kind)
    assert slow.captured is None and slow.refused and kind.captured is not None
    assert said == ["eager, since a captured step took 1.50 times as long as an ordinary one"]
    kind = Kind(captured=Graph(), runs="compiled", compiled=policies.STEPS_TO_COMPARE, seconds=0.3, before=0.2)
    policy.reconsider(kind)
    assert kind.captured.run == "replay" and kind.runs == "captured"
    assert said[1:] == ["captured, since a compiled step took 1.50 times as long"]
    asked = Kind(captured=Graph(), replays=policies.STEPS_TO_COMPARE, seconds=0.3, usual=0.2)
    Policy("captured", 400, True, print).reconsider(asked)
    assert asked.captured is not None


def test_an_engine_leaves_a_graph_that_is_slower_than_what_it_notes_of_ordinary_steps(audited):
    audited(7)
    linear, said = torch.nn.Linear(3, 1), []

    def late(replay, *arguments):
        time.sleep(0.02)
        return replay(*arguments)

    engine = Engine(lambda x: ([linear(x).sum().detach()], []), [linear])
    engine.policy.say = said.append
    for _ in range(3 + policies.STEPS_TO_COMPARE):
        engine(torch.ones(2, 3))
        for kind in engine.kinds.values():
            if kind.captured is not None and kind.captured.run is kind.captured.replay:
                kind.captured.run, kind.seconds = partial(late, kind.captured.replay), math.inf
    assert engine.running == "eager" and len(said) == 1 and said[0].startswith("eager, since a captured step took")
