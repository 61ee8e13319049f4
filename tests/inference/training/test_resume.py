"""A run that was broken off, anywhere and by anything, ends as if it had not been."""

from __future__ import annotations

import functools
import multiprocessing
import os
import random
import shutil
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pytest
import torch
from training_cases import CASES, EPOCHS, train, train_to_be_killed

from dlvm.inference.training.checkpointer import Keeper

QUICK = ("functions", "numpy")
slow = pytest.mark.slow
EACH = [case if case in QUICK else pytest.param(case, marks=slow) for case in CASES]


class PowerCut(BaseException):
    """Nothing in the library knows of it."""


@functools.cache
def uninterrupted(case: str, dtype: torch.dtype = torch.float32, epochs: int = EPOCHS) -> dict:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return train(case, epochs=epochs)
    finally:
        torch.set_default_dtype(before)


@pytest.fixture
def cut_after(monkeypatch):
    """(number of steps) -> training in this process ends there, without a further word."""

    def at(step: int) -> None:
        def after_step(self, run):
            original(self, run)
            if run.progress.steps == step:
                raise PowerCut

        original = Keeper.after_step
        monkeypatch.setattr(Keeper, "after_step", after_step)

    yield at
    monkeypatch.undo()


@pytest.mark.parametrize("case", EACH)
def test_a_run_goes_on_bit_for_bit(case, tmp_path, cut_after, monkeypatch):
    for step in (2, 7, 13):  # before any checkpoint, between two in mid-epoch, in a later epoch
        cut_after(step)
        with pytest.raises(PowerCut):
            train(case, tmp_path)
        monkeypatch.undo()
    assert train(case, tmp_path) == uninterrupted(case)


@pytest.mark.parametrize("case", EACH)
def test_a_run_that_was_cut_behind_the_last_step_of_an_epoch_goes_on(case, tmp_path, cut_after, monkeypatch):
    """That step is written, and not the epoch, in which no batch is left; epochs have 5 or 6."""
    for step in (5, 6, 10, 12):
        cut_after(step)
        with pytest.raises(PowerCut):
            train(case, tmp_path, every=1)
        monkeypatch.undo()
    assert train(case, tmp_path, every=1) == uninterrupted(case)


@pytest.mark.parametrize("case", EACH)
def test_a_finished_run_gives_its_history_and_its_parameters_without_a_step(case, tmp_path, monkeypatch):
    assert train(case, tmp_path) == uninterrupted(case)
    monkeypatch.setattr("dlvm.inference.training.svi.SVI.step", lambda *args: pytest.fail("a finished run made a step"))
    assert train(case, tmp_path) == uninterrupted(case)


@pytest.mark.parametrize("case", ["numpy", pytest.param("eager", marks=slow), pytest.param("nvil", marks=slow)])
def test_more_epochs_continue_a_finished_run(case, tmp_path):
    assert train(case, tmp_path, epochs=2) == uninterrupted(case, epochs=2)
    assert train(case, tmp_path, epochs=5) == uninterrupted(case, epochs=5)


@pytest.mark.parametrize("every", [1, 5, None])
def test_how_often_it_is_written_down_changes_nothing(every, tmp_path, cut_after, monkeypatch):
    cut_after(8)
    with pytest.raises(PowerCut):
        train("functions", tmp_path, every=every)
    monkeypatch.undo()
    assert train("functions", tmp_path, every=every) == uninterrupted("functions")


def test_a_checkpoint_of_a_step_already_written_never_leaves_none(tmp_path, cut_after, monkeypatch):
    """The end of an epoch is written over the step that it ends with; with keep=1 there is no other."""
    seen = []
    replace = os.replace

    def watched(old, new):
        seen.append([path.name for path in tmp_path.glob("step-*")])
        replace(old, new)

    monkeypatch.setattr("dlvm.inference.checkpoints.folder.os.replace", watched)
    train("functions", tmp_path, every=1, keep=1)
    assert len(seen) > 20 and all(names for names in seen[1:])
    assert len(list(tmp_path.iterdir())) == 1


@slow
def test_a_compiled_run_goes_on_to_rounding(tmp_path, cut_after, monkeypatch):
    settings = dict(engine="compiled")
    cut_after(13)
    with pytest.raises(PowerCut):
        train("eager", tmp_path, **settings)
    monkeypatch.undo()
    found, expected = train("eager", tmp_path, **settings), train("eager", **settings)
    for name in (name for name in expected if name != "epochs"):
        there, here = (np.frombuffer(run[name], np.float32) for run in (expected, found))
        np.testing.assert_allclose(here, there, rtol=1e-4, atol=1e-5)


def killed_until_done(server, case: str, dtype: torch.dtype, folder: Path, patience: float, kills: random.Random):
    """Starts the run again and again; kills it after a random while; what it came to, kills, kills within a write."""
    killed = within = 0
    while True:
        started, (inbox, outbox) = server.Event(), server.Pipe(duplex=False)
        process = server.Process(target=train_to_be_killed, args=(case, folder, dtype, 0.01, started, outbox))
        process.start()
        outbox.close()
        assert started.wait(60)
        left = kills.uniform(0.1, patience)
        found = inbox.recv() if inbox.poll(left) else None
        if found is not None:
            process.join()
            return found, killed, within
        process.kill()
        process.join()
        killed, within, patience = killed + 1, within + bool(list(folder.glob(".step-*.part"))), patience * 1.1


def kill_and_compare(folder: Path, cases: list[tuple[str, torch.dtype]], at_least: int, seed: int, writes: int = 0):
    """Kills so often at least, and so often within a write, however seldom a slow machine comes to one."""
    server, moments = multiprocessing.get_context("forkserver"), random.Random(seed)
    server.set_forkserver_preload(["training_cases"])
    with pytest.MonkeyPatch.context() as patch:  # the server does not take over sys.path before it preloads
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        forkserver.ensure_running()
    killed = within = turn = 0
    deadline = time.monotonic() + 600
    while killed < at_least or within < writes:
        case, dtype = cases[turn % len(cases)]
        found, times, inside = killed_until_done(server, case, dtype, folder / str(turn), 1.0, moments)
        assert found == uninterrupted(case, dtype), f"{case} after {times} kills"
        killed, within, turn = killed + times, within + inside, turn + 1
        shutil.rmtree(folder / str(turn - 1))
        assert time.monotonic() < deadline, f"{within} of {killed} kills were within a write"


@pytest.mark.slow
def test_a_run_that_is_killed_a_few_times_ends_as_if_it_had_not_been(tmp_path):
    kill_and_compare(tmp_path, [("functions", torch.float32)], at_least=4, seed=1)


@slow
def test_runs_of_every_kind_are_killed_in_training_and_in_writing(tmp_path):
    cases = [(case, (torch.float64, torch.float32)[turn % 2]) for turn, case in enumerate(CASES)]
    kill_and_compare(tmp_path, cases, at_least=30, seed=0, writes=3)
