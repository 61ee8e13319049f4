"""Two sweeps in one folder, cells whose source was changed, and clusters that stay silent about their dead."""

from __future__ import annotations

import dataclasses
import gc
import logging
import subprocess
import sys
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from joblib import Parallel, delayed, parallel_config
from joblib.parallel import ParallelBackendBase

from dlvm.experiments.runs.folder import Run
from dlvm.experiments.sweeps import cells, workers
from dlvm.experiments.sweeps.cells import Cell, Done, Kept
from dlvm.experiments.sweeps.sweep import Sweep, sweep
from dlvm.experiments.sweeps.workers import Workers
from dlvm.inference.checkpoints.lock import LOCK, locked

INTRUDER = "import fcntl, sys; fcntl.flock(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"


@dataclass(frozen=True)
class Config:
    """What two cells are given."""

    out: Path
    scale: float = 1.0


def draw(config: Config, seed: int) -> Done:
    return Done({"seed": seed, "w": config.scale * seed}, {"w": torch.full((2,), config.scale * seed)})


def swept(config: Config, data: str = "data") -> Sweep:
    both = [Cell(f"seed {seed}", draw, config, {"seed": seed}, (data,)) for seed in range(2)]
    run = Run(config.out, dataclasses.asdict(config), goes_on=True)
    return sweep(both, run, Workers(), lambda row: f"w {row['w']:.2f}")


@pytest.fixture
def said(caplog) -> pytest.LogCaptureFixture:
    with caplog.at_level(logging.INFO, logger="dlvm"):
        yield caplog


def test_a_second_sweep_in_the_same_folder_ends_in_one_line(tmp_path):
    config = Config(tmp_path)
    swept(config)
    with locked(tmp_path, "a run"), pytest.raises(BlockingIOError) as stopped:
        swept(config)
    assert str(stopped.value).startswith(f"{tmp_path} is in use by a run of this process; let that end first")
    assert len(swept(config).done) == 2  # nothing is left of the lock


def test_a_script_that_sweeps_twice_lets_nobody_in_between(tmp_path):
    run = Run(tmp_path, {})
    sweep([], run, Workers(), str)
    assert subprocess.run([sys.executable, "-c", INTRUDER, tmp_path / LOCK]).returncode == 1
    sweep([], run, Workers(), str)
    other = Run(tmp_path, {}, overwrite=True)  # of the same process, while the first is still in use
    sweep([], other, Workers(), str)
    del run, other
    gc.collect()
    with locked(tmp_path, "a run"):
        pass


def test_a_changed_source_is_said_to_be_why_finished_cells_are_not_taken(tmp_path, said, monkeypatch):
    config = Config(tmp_path)
    first = swept(config)
    swept(config)
    assert "not taken" not in said.text  # all are
    monkeypatch.setattr(cells, "checksum_of_code", lambda script: "edited")
    second = swept(config)
    assert f"2 finished cells in {tmp_path / 'cells'} are not taken, and computed anew: other code (2)" in said.text
    assert second.rows == first.rows
    said.clear()
    swept(config)
    assert "not taken" not in said.text


def test_data_and_versions_are_named_where_they_have_changed(tmp_path, said, monkeypatch):
    swept(Config(tmp_path))
    monkeypatch.setattr(torch, "__version__", "0.1")
    swept(Config(tmp_path), data="other")
    assert "other data (2), other versions of torch and Pyro (2)" in said.text


def test_a_cell_with_another_title_is_nobodys_earlier_one(tmp_path):
    kept, config = Kept(tmp_path), Config(tmp_path)
    mine = Cell("mine", draw, config, {"seed": 1})
    kept.put(mine, draw(config, 1))
    assert kept.get(mine).record == {"seed": 1, "w": 1.0}
    doubled = dataclasses.replace(config, scale=2.0)
    assert kept.outdated([Cell("yours", draw, doubled, {"seed": 1})]) == {}
    assert kept.outdated([Cell("mine", draw, doubled, {"seed": 1})]) == {"mine": ["settings"]}


class Silent(ParallelBackendBase):
    """As joblib's Dask backend is: a task whose workers died ends its future and tells nobody; there is one worker."""

    supports_retrieve_callback = True

    def effective_n_jobs(self, n_jobs):
        return 1

    def submit(self, func, callback=None):
        future = Future()
        future.set_exception(ChildProcessError("the workers died"))
        return future

    def retrieve_result_callback(self, out):
        raise out


def test_a_task_whose_workers_died_ends_with_that_error():
    backend = Silent()
    workers._mend(backend)
    with parallel_config(backend=backend), pytest.raises(ChildProcessError, match="the workers died"):
        list(Parallel(n_jobs=2, return_as="generator_unordered")([delayed(int)("1")]))
