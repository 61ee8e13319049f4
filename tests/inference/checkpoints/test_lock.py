"""Two runs never write to one folder at once, and a dead one keeps nobody out."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from training_cases import bits, pair, train

from dlvm.inference import ELBO, fit
from dlvm.inference.checkpoints.lock import LOCK, locked

pytest.importorskip("fcntl")


@pytest.fixture
def holder(tmp_path):
    """A process that has locked the folder and stays there until it is killed."""
    inbox, outbox = os.pipe()
    if (process := os.fork()) == 0:
        with locked(tmp_path, "a sweep"):
            os.write(outbox, b".")
            time.sleep(600)
        os._exit(0)
    os.read(inbox, 1)
    yield process
    with suppress(ProcessLookupError, ChildProcessError):
        end(process)


def end(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def run(folder: Path):
    return fit(*pair(), ELBO(), [(bits(),)], epochs=3, checkpoint=folder, progress=False, engine="eager")


def test_another_process_is_named_and_once_it_is_killed_the_folder_is_free(tmp_path, holder):
    words = rf"{tmp_path} is in use by a sweep of process {holder}; let that end first, or choose another folder"
    with pytest.raises(BlockingIOError, match=words):
        run(tmp_path)
    end(holder)
    assert (tmp_path / LOCK).exists()
    assert len(list(run(tmp_path))) == 3
    assert sorted(path.name[:4] for path in tmp_path.iterdir()) == ["step"] * 3


def test_a_second_run_of_this_process_is_refused_until_the_first_has_ended(tmp_path):
    first = run(tmp_path)
    next(first)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BlockingIOError, match="is in use by a training run of this process"):
        run(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    first.close()
    assert len(list(run(tmp_path))) == 3


def test_a_run_that_was_never_begun_or_failed_leaves_the_folder_free(tmp_path):
    run(tmp_path)
    train("functions", tmp_path, epochs=1)
    with pytest.raises(ValueError, match="holds another run"):
        run(tmp_path)
    train("functions", tmp_path, epochs=1)


def test_a_child_of_the_holder_neither_has_the_lock_nor_ends_it(tmp_path):
    with locked(tmp_path, "a run"):
        if (child := os.fork()) == 0:
            try:
                with locked(tmp_path, "its child"):
                    os._exit(1)
            except BlockingIOError as error:
                os._exit(0 if f"process {os.getppid()}" in str(error) else 2)
        assert os.waitpid(child, 0)[1] == 0
        assert (tmp_path / LOCK).exists()
    assert not (tmp_path / LOCK).exists()


def test_a_holder_who_has_left_a_child_behind_keeps_nobody_out(tmp_path):
    inbox, outbox = os.pipe()
    if (holder := os.fork()) == 0:
        locked(tmp_path, "a run").__enter__()
        if os.fork() == 0:
            os.close(outbox)
            os.read(inbox, 1)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(holder, 0)
    with locked(tmp_path, "another"):
        pass
    os.close(inbox), os.close(outbox)
