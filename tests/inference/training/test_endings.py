"""Ctrl-C, SIGTERM and broken writing end a run clearly, at the very step, and the next call goes on from there."""

from __future__ import annotations

import functools
import os
import signal
import threading

import pytest
import torch
from torch.optim import lr_scheduler as schedules
from training_cases import train

from dlvm.inference.checkpoints.folder import CheckpointFailed, Checkpoints
from dlvm.inference.training.checkpointer import Keeper
from dlvm.inference.training.run import Run
from dlvm.inference.training.svi import SVI


@pytest.fixture(autouse=True)
def heard():
    """Ctrl-C as on a terminal, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@functools.cache
def uninterrupted() -> dict:
    return train("functions")


@pytest.fixture
def signals_at(monkeypatch):
    """(step, signal, ...): they arrive in the middle of that step."""

    def at(step: int, *numbers: int) -> None:
        def stepping(self, *args, **kwargs):
            done[0] += 1
            for number in numbers if done[0] == step else ():
                os.kill(os.getpid(), number)
            return original(self, *args, **kwargs)

        original, done = SVI.step, [0]
        monkeypatch.setattr(SVI, "step", stepping)

    yield at
    monkeypatch.undo()


@pytest.mark.parametrize(("number", "ending"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_ends_after_the_step_at_hand(tmp_path, signals_at, monkeypatch, caplog, number, ending):
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    signals_at(8, number)
    with caplog.at_level("INFO", "dlvm"), pytest.raises(ending) as raised:
        train("functions", tmp_path)
    last = f"the last good checkpoint is {tmp_path / 'step-0000000008'}"
    said = f"stopped in epoch 2; {last}; run again to go on"
    if ending is KeyboardInterrupt:
        assert str(raised.value) == said
    else:
        assert raised.value.code == 143 and caplog.messages == [said]
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
    monkeypatch.undo()
    assert train("functions", tmp_path) == uninterrupted()


def test_a_second_signal_ends_at_once(tmp_path, signals_at, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    signals_at(8, signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as raised:
        train("functions", tmp_path)
    assert str(raised.value) == ""  # Python's own
    assert signal.getsignal(signal.SIGINT) is before
    assert Checkpoints(tmp_path).latest().record["progress"]["steps"] == 6
    monkeypatch.undo()
    assert train("functions", tmp_path) == uninterrupted()


@pytest.mark.parametrize("epoch", [1, 4])
def test_a_signal_during_validation_is_not_forgotten(tmp_path, monkeypatch, epoch):
    def validating(self):
        if self.progress.epoch == epoch:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self)

    original = Run.validate
    monkeypatch.setattr(Run, "validate", validating)
    with pytest.raises(KeyboardInterrupt, match="stopped in epoch"):
        train("functions", tmp_path)
    monkeypatch.undo()
    assert train("functions", tmp_path) == uninterrupted()


def test_without_checkpoints_signals_are_left_alone(signals_at):
    signals_at(3, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as raised:
        train("functions")
    assert str(raised.value) == ""


def test_in_a_thread_no_handler_is_set(tmp_path, monkeypatch):
    found = {}
    monkeypatch.setattr(signal, "signal", lambda *args: pytest.fail("a handler was set in a thread"))
    thread = threading.Thread(target=lambda: found.update(train("functions", tmp_path)))
    thread.start()
    thread.join()
    monkeypatch.undo()
    assert found == uninterrupted()


def test_handlers_that_the_user_set_are_put_back_between_epochs(tmp_path, monkeypatch):
    seen, mine = [], lambda *args: None
    before = signal.signal(signal.SIGTERM, mine)
    try:
        monkeypatch.setattr(Keeper, "after_step", lambda self, run: seen.append(signal.getsignal(signal.SIGTERM)))
        train("functions", tmp_path)
        assert signal.getsignal(signal.SIGTERM) is mine
        assert mine not in seen and len(seen) == 20
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_disk_that_is_full_in_mid_training_ends_the_run_and_it_goes_on_later(tmp_path, monkeypatch):
    def full(descriptor, done=[0]):  # noqa: B006 - the count is the point
        done[0] += 1
        if done[0] == 14:
            raise OSError(28, "No space left on device")
        return flush(descriptor)

    flush = os.fsync
    monkeypatch.setattr("dlvm.inference.checkpoints.folder.os.fsync", full)
    last = rf"the last good checkpoint is {tmp_path}/step-\d+"
    with pytest.raises(CheckpointFailed, match=rf"written to {tmp_path}: .*No space left.*; {last}: make room there"):
        train("functions", tmp_path)
    assert not list(tmp_path.glob(".*"))
    monkeypatch.undo()
    assert train("functions", tmp_path) == uninterrupted()


def test_a_schedule_that_needs_a_number_is_refused():
    with pytest.raises(TypeError, match="stepped by epochs alone, .* got ReduceLROnPlateau; write partial"):
        train("functions", scheduler=schedules.ReduceLROnPlateau)
    with pytest.raises(TypeError, match="got float"):
        train("functions", scheduler=lambda optimizer: 0.5)


@pytest.mark.parametrize("every", [0, True, 1.5])
def test_every_must_be_a_count(tmp_path, every):
    with pytest.raises(ValueError, match="every must be an integer of at least 1 or None, got"):
        train("functions", tmp_path, every=every)


def test_every_without_a_folder_is_refused():
    with pytest.raises(ValueError, match="every needs checkpoint, the folder to write to"):
        train("functions", every=2)


def test_a_loader_whose_state_is_no_tensor_is_refused_with_the_remedy(tmp_path):
    class Counting(list):
        def state_dict(self):
            return {"position": 3}

    x = torch.zeros(4, 6)
    with pytest.raises(TypeError, match="must hold tensors, .* and 'position' holds something else; turn it into"):
        train("functions", tmp_path, train=Counting([(x,)]))
