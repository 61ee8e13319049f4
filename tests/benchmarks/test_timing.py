"""The statistics of side-by-side timing, on a clock that the tests turn by hand."""

from __future__ import annotations

import gc
from contextlib import contextmanager

import pytest

from benchmarks.timing import Spread, Stopwatch, Timings, measure, spread


class Machine:
    """A clock, and work that takes as long as it says times how slow the machine is."""

    def __init__(self):
        self.now, self.slowness, self.calls = 0.0, 1.0, []

    def clock(self) -> float:
        return self.now

    def work(self, name: str, seconds: float):
        def call():
            self.calls.append(name)
            self.now += seconds * self.slowness

        return call


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_the_median_lies_in_the_spread():
    assert spread([5.0, 1.0, 2.0, 9.0]) == Spread(3.5, 1.0, 9.0)


def test_ratios_are_formed_within_each_repetition():
    timings = Timings({"a": [1.0, 20.0, 3.0], "b": [2.0, 10.0, 4.0]})
    assert timings.ratio("a", "b") == Spread(0.75, 0.5, 2.0)
    assert timings.ratio("a", "b").median != timings.of("a").median / timings.of("b").median + 1e-9
    assert timings.ratio("b", "a") == Spread(4 / 3, 0.5, 2.0)


def test_seconds_are_per_call_whatever_the_length_of_the_block(machine):
    variants = {"quick": machine.work("quick", 0.25), "slow": machine.work("slow", 2.0)}
    timings = measure(variants, repetitions=3, block_seconds=1.0, warmup=1, clock=machine.clock)
    assert timings.seconds == {"quick": [0.25] * 3, "slow": [2.0] * 3}
    assert machine.calls.count("quick") == 2 + 3 * 4 and machine.calls.count("slow") == 2 + 3 * 1


def test_the_order_is_reversed_every_other_repetition(machine):
    variants = {name: machine.work(name, 1.0) for name in "abc"}
    measure(variants, repetitions=3, block_seconds=0.0, warmup=1, clock=machine.clock)
    assert "".join(machine.calls[2 * len(variants) :]) == "abc" + "cba" + "abc"


def test_a_machine_that_slows_down_leaves_the_ratio_as_it_is(machine):
    blocks = iter(range(100))

    def slowing(call):
        def slower():
            machine.slowness = 1.0 + next(blocks) // 2  # both variants of a repetition meet the same machine
            call()

        return slower

    variants = {"a": slowing(machine.work("a", 1.0)), "b": slowing(machine.work("b", 4.0))}
    timings = measure(variants, repetitions=4, block_seconds=0.0, warmup=1, clock=machine.clock)
    assert timings.of("b").high > 1.5 * timings.of("b").low
    assert timings.ratio("a", "b") == Spread(0.25, 0.25, 0.25)


def test_the_heap_is_frozen_while_it_measures_and_thawed_after_an_error(machine, monkeypatch):
    monkeypatch.setattr(gc, "freeze", lambda: machine.calls.append("freeze"))
    monkeypatch.setattr(gc, "unfreeze", lambda: machine.calls.append("unfreeze"))
    left = iter(range(3))

    def call():
        next(left)
        machine.calls.append("a")

    with pytest.raises(StopIteration):
        measure({"a": call}, repetitions=5, block_seconds=0.0, warmup=1)
    assert machine.calls == ["a", "a", "freeze", "a", "unfreeze"]


def test_what_is_left_out_is_not_counted(machine):
    watch = Stopwatch(machine.clock)
    start = machine.work("start", 10.0)
    pace = machine.work("pace", 0.5)

    def call():
        began = watch()
        start()
        watch.leave_out_since(began)
        pace()

    timings = measure({"a": call}, repetitions=2, block_seconds=1.0, warmup=1, clock=watch)
    assert timings.seconds == {"a": [0.5, 0.5]} and machine.calls.count("start") == 2 + 2 * 2


def test_what_keeps_the_machine_quiet_is_entered_after_warming_up(machine):
    @contextmanager
    def quiet():
        machine.calls.append("quiet")
        yield

    measure({"a": machine.work("a", 1.0)}, 2, 0.0, warmup=3, quiet=quiet, clock=machine.clock)
    assert machine.calls == ["a"] * 4 + ["quiet"] + ["a"] * 2


@pytest.mark.parametrize("wrong", [dict(variants={}), dict(repetitions=0), dict(warmup=0)])
def test_nothing_to_measure_is_refused(wrong):
    with pytest.raises(ValueError, match="measure needs a variant"):
        measure(**{"variants": {"a": lambda: None}, **wrong})
