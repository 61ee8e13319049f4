"""Ranks on several machines, each started by a ``torchrun`` of its own; and more ranks than a batch has rows."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from joint_steps import all_trained
from safetensors.torch import load_file, save_file

from dlvm.inference.checkpoints.shared import checkpoints_of
from dlvm.inference.distributed.job import joined

ROOT = Path(__file__).parents[3]
SOME = ["elbo", "iwae_dreg", "fixed_free_bits", "total_correlation", "fixed_total_correlation", "binary_nvil"]
TINY = ["--hidden", "16", "--epochs", "3", "--patience", "None", "--eval-particles", "30", "--eval-data", "20"]
TRAIN = ["-m", "dlvm.experiments.train", *TINY, "--checkpoint", "--checkpoint-every", "5", "--out"]


def work_on_steps(folder: Path) -> None:
    """What some objectives learn, on batches of 5, 1 and 4 rows."""
    with joined() as job:
        save_file(all_trained(SOME), folder / f"rank{job.rank}.safetensors")


def work_on_elsewhere(folder: Path) -> None:
    """A run whose checkpoints lie where the second rank is, and then where both are."""
    said = []
    with joined() as job:
        for mine in (f"machine{job.rank}", "shared"):
            checkpoints = checkpoints_of(folder / mine, 3)
            try:
                said.append(checkpoints.latest().record["step"])
            except ValueError as error:
                said.append(str(error))
    (folder / f"rank{job.rank}.json").write_text(json.dumps(said))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def by_hand(work: str, folder: Path, ranks: int) -> list[subprocess.Popen]:
    """Processes that know each other without ``torchrun``."""
    job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(ranks)}
    return [started([__file__, work, str(folder)], job | {"RANK": str(rank)}) for rank in range(ranks)]


def launched(*command: str, nodes: int = 2, each: int = 1) -> list[subprocess.Popen]:
    """The same command on every machine, as the README has it; "{node}" in it is the machine's number."""
    where = ["--master_addr=127.0.0.1", f"--master_port={free_port()}", f"--nproc_per_node={each}"]
    torchrun = ["-m", "torch.distributed.run", f"--nnodes={nodes}", *where]
    return [
        started([*torchrun, f"--node_rank={node}", *(word.replace("{node}", str(node)) for word in command)])
        for node in range(nodes)
    ]


def started(command: list[str], more: dict[str, str] | None = None) -> subprocess.Popen:
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    environment = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | (more or {})
    texts = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": ROOT}
    return subprocess.Popen([sys.executable, *command], env=os.environ | environment, **texts)


def finish(processes: list[subprocess.Popen], seconds: float = 300) -> list[str]:
    """What each has printed; none is left running."""
    try:
        return [process.communicate(timeout=seconds)[0] for process in processes]
    finally:
        for process in processes:
            kill_machine(process)


def kill_machine(agent: subprocess.Popen) -> None:
    """``torchrun`` and its rank at once."""
    for pid in [agent.pid, *children(agent.pid)] if agent.poll() is None else []:
        os.kill(pid, signal.SIGKILL)


def children(parent: int) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(place.name))
    return found


def until(condition, seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def done(processes: list[subprocess.Popen]) -> list[str]:
    said = finish(processes)
    assert not any(process.returncode for process in processes), said
    return said


@pytest.fixture(scope="module")
def alone() -> dict[str, torch.Tensor]:
    """Of one process on the joint batches."""
    return all_trained(SOME)


def require_equal(alone: dict, folder: Path, ranks: int) -> None:
    for rank in range(ranks):
        found = load_file(folder / f"rank{rank}.safetensors")
        for key, value in alone.items():
            torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
def test_two_machines_make_the_steps_of_one_process(alone, tmp_path):
    done(launched(__file__, "steps", str(tmp_path)))
    require_equal(alone, tmp_path, 2)


@pytest.mark.slow
def test_so_do_three_ranks_of_which_some_have_no_row_of_a_batch(alone, tmp_path):
    done(by_hand("steps", tmp_path, 3))
    require_equal(alone, tmp_path, 3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, str]:
    """The folder of a run of two ranks on one machine, and what they said."""
    folder = tmp_path_factory.mktemp("whole")
    (said,) = done(launched(*TRAIN, str(folder), nodes=1, each=2))
    return folder, said


@pytest.mark.slow
def test_train_runs_under_torchrun(whole):
    folder, said = whole
    assert said.count("epoch    3") == 1 and said.count("report:") == 1  # one rank speaks
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 3
    assert json.loads((folder / "result.json").read_text())["num_data"] == 20
    assert (folder / "model.safetensors").exists()


@pytest.mark.slow
def test_a_killed_machine_ends_the_other_in_words_and_the_same_commands_go_on_to_the_same_bits(whole, tmp_path):
    both = first, second = launched(*TRAIN, str(tmp_path / "machine{node}"))
    until(lambda: len(list(tmp_path.glob("machine0/checkpoints/step-*"))) == 3)
    kill_machine(second)
    said = finish(both)
    assert first.returncode == 1 and second.returncode == -signal.SIGKILL
    assert "error: rank 0 of 2 has lost another rank" in said[0] and "the last good checkpoint is" in said[0]
    assert not (tmp_path / "machine0" / "result.json").exists() and not (tmp_path / "machine1").exists()
    assert "epoch    3" in done(launched(*TRAIN, str(tmp_path / "machine{node}")))[0]
    for name in ("model.safetensors", "guide.safetensors"):
        assert (whole[0] / name).read_bytes() == (tmp_path / "machine0" / name).read_bytes()


@pytest.mark.slow
def test_a_run_does_not_begin_anew_while_its_checkpoints_lie_on_another_machine(tmp_path):
    for place in ("machine1", "shared"):
        checkpoints_of(tmp_path / place, 3).write(7, {}, {"step": 7})
    done(by_hand("elsewhere", tmp_path, 2))
    for rank in range(2):
        refused, found = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert refused.startswith(
            f"rank 1 sees a checkpoint of step 7 in {tmp_path / f'machine{rank}'}, the first rank"
        )
        assert "share the folder between machines" in refused
        assert found == 7


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    globals()[f"work_on_{sys.argv[1]}"](Path(sys.argv[2]))
