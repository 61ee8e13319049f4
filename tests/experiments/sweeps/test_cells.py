"""Sweeps of cells: what is kept, what is done again, and what a failure, a kill or a damaged file takes along."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from joblib import parallel_config

from dlvm.experiments.runs.folder import Run
from dlvm.experiments.sweeps.cells import Cell, Done, Kept
from dlvm.experiments.sweeps.scheduler import compute
from dlvm.experiments.sweeps.sweep import sweep
from dlvm.experiments.sweeps.workers import Workers

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Config:
    """Tiny cells; ``data_dir`` holds orders for them, and what they leave: one file for each time that one began."""

    out: Path
    data_dir: Path
    seeds: int = 4
    scale: float = 1.0
    jobs: int = 1
    backend: str = "loky"
    cluster: str | None = None


def draw(config: Config, seed: int) -> Done:
    began = config.data_dir / f"began-{seed}-{os.getpid()}-{time.time_ns()}"
    began.write_text(str(os.getpid()))
    if (config.data_dir / f"fail-{seed}").exists():
        raise ArithmeticError(f"nothing comes of {seed}")
    if (config.data_dir / f"die-{seed}").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    while (config.data_dir / f"wait-{seed}").exists():
        time.sleep(0.05)
    torch.manual_seed(seed)
    w = config.scale * torch.randn(3, 2)
    return Done({"seed": seed, "w": w.sum().item(), "history": [{"epoch": 1, "w": w[0, 0].item()}]}, {"w": w.t()})


def main(config: Config, overwrite: bool = False) -> dict:
    names = [{"seed": seed} for seed in range(config.seeds)]
    cells = [Cell(f"seed {name['seed']}", draw, config, name, ("data",), name) for name in names]
    run = Run(config.out, dataclasses.asdict(config), overwrite, goes_on=True)
    found = sweep(cells, run, Workers.of(config), lambda row: f"w {row['w']:.2f}")
    tensors = [{name: value.tolist() for name, value in done.tensors.items()} for done in found.done]
    run.result(runs=found.rows, tensors=tensors, failed=found.failed)
    run.report("What comes of seeds?", "", found.tables())
    found.end(run)
    return {"rows": found.rows, "tensors": tensors}


SCRIPT = "\n".join(
    [
        "from __future__ import annotations",
        "import dataclasses, os, signal, sys, time",
        "import torch",
        "from dataclasses import dataclass",
        "from pathlib import Path",
        "from dlvm.experiments.sweeps.cells import Cell, Done",
        "from dlvm.experiments.runs.folder import Run",
        "from dlvm.experiments.sweeps.sweep import sweep",
        "from dlvm.experiments.sweeps.workers import Workers",
        *map(inspect.getsource, (Config, draw, main)),
        "if __name__ == '__main__':",
        "    main(Config(Path(sys.argv[1]), Path(sys.argv[2]), jobs=int(sys.argv[3])))",
    ]
)


@pytest.fixture
def orders(tmp_path):
    folder = tmp_path / "orders"
    folder.mkdir()
    return folder


def began(orders: Path) -> list[int]:
    """Which cells were computed, in order of seeds, once for each time."""
    return sorted(int(path.name.split("-")[1]) for path in orders.glob("began-*"))


def forget(orders: Path) -> None:
    for path in orders.iterdir():
        path.unlink()


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text("utf-8"))


def start(tmp_path: Path, out: Path, orders: Path, jobs: int) -> subprocess.Popen:
    script = tmp_path / "seeds.py"
    script.write_text(SCRIPT)
    command = [sys.executable, script, out, orders, str(jobs)]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(list(map(str, command)), env=environment, start_new_session=True, **pipes)


def until(condition, seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_failed_cell_takes_no_other_along_and_alone_is_tried_again(tmp_path, orders, capsys):
    whole = main(Config(tmp_path / "whole", orders))
    forget(orders)
    (orders / "fail-2").touch()
    config = Config(tmp_path / "run", orders)
    with pytest.raises(SystemExit) as stopped:
        main(config)
    assert str(stopped.value).startswith(
        "1 of 4 cells failed (seed 2: ArithmeticError: nothing comes of 2); the others"
    )
    assert "seed 2: failed: ArithmeticError: nothing comes of 2" in capsys.readouterr().out
    assert [row["seed"] for row in result(config.out)["runs"]] == [0, 1, 3]
    assert "nothing comes of 2" in (config.out / "report.html").read_text("utf-8")
    forget(orders)
    assert main(config) == whole
    assert began(orders) == [2]
    assert "3 of 4 cells are there" in capsys.readouterr().out
    assert result(config.out) == result(tmp_path / "whole")
    logged = (config.out / "metrics.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["seed"] for line in logged) == [0, 1, 2, 3]


def test_only_a_run_of_the_same_settings_that_is_not_finished_goes_on(tmp_path, orders):
    config = Config(tmp_path / "run", orders)
    (orders / "fail-0").touch()
    with pytest.raises(SystemExit):
        main(config)
    with pytest.raises(ValueError, match="holds a run; choose another or overwrite=True"):
        main(dataclasses.replace(config, scale=2.0))
    forget(orders)
    main(config)
    assert began(orders) == [0]
    with pytest.raises(ValueError, match="holds a run; choose another or overwrite=True"):
        main(config)
    forget(orders)
    other = dataclasses.replace(config, scale=2.0, seeds=2)
    rows = main(other, overwrite=True)["rows"]
    assert began(orders) == [0, 1]
    assert len(list((config.out / "cells").iterdir())) == 2
    assert rows[0]["w"] == pytest.approx(2 * draw(config, 0).record["w"])


def test_a_damaged_cell_is_named_and_computed_again(tmp_path, orders, caplog):
    config = Config(tmp_path / "run", orders)
    whole = main(config)
    (config.out / "report.html").unlink()
    cells = [Cell("", draw, config, {"seed": seed}, ("data",)) for seed in range(4)]
    torn, changed = (config.out / "cells" / cell.key for cell in cells[1:3])
    record = next(torn.rglob("record.json"))
    record.write_bytes(record.read_bytes()[:-20])
    tensors = next(changed.rglob("tensors.safetensors"))
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    forget(orders)
    with caplog.at_level("INFO", logger="dlvm"):
        assert main(config) == whole
    assert began(orders) == [1, 2]
    assert str(torn) in caplog.text and str(changed) in caplog.text
    assert "tensors.safetensors does not match its checksum" in caplog.text


def test_an_interrupt_keeps_what_is_done(tmp_path, orders, monkeypatch, capsys):
    config = Config(tmp_path / "run", orders)
    kept = Kept.put

    def put(self, cell, done):
        if cell.title == "seed 2":
            raise KeyboardInterrupt
        kept(self, cell, done)

    monkeypatch.setattr(Kept, "put", put)
    with pytest.raises(KeyboardInterrupt):
        main(config)
    assert "2 of 4 cells are done and kept; the same command goes on" in capsys.readouterr().out
    monkeypatch.undo()
    forget(orders)
    main(config)
    assert began(orders) == [2, 3]


def test_a_key_is_of_all_that_changes_a_number_and_of_nothing_else(tmp_path):
    config = Config(tmp_path, tmp_path)
    cell = Cell("a", draw, config, {"seed": 1, "state": {"w": torch.ones(2)}}, ("d",))

    def other(**changes):
        return dataclasses.replace(cell, **changes).key

    same = dataclasses.replace(config, jobs=8, backend="dask", cluster="tcp://a:1", out=tmp_path / "b")
    assert cell.key == other(title="b", config=same, facts={"seed": 1})
    different = [
        other(config=dataclasses.replace(config, scale=2.0)),
        other(names={"seed": 2, "state": {"w": torch.ones(2)}}),
        other(names={"seed": 1, "state": {"w": torch.tensor([1.0, 1.0 + 2**-23])}}),
        other(data=("e",)),
        other(function=main),
    ]
    assert len({cell.key, *different}) == 6


def test_what_a_cell_cannot_give_is_its_failure(tmp_path, orders):
    def strange(config, seed):
        return Done({"seed": object()}, {})

    cell = Cell("strange", strange, Config(tmp_path, orders), {"seed": 0})
    index, text, _ = compute(cell, 7, parent=0)
    assert index == 7
    assert json.loads(text) == {"error": "TypeError: Object of type object is not JSON serializable"}


def test_workers_that_cannot_be_had_are_refused_with_the_reason():
    with pytest.raises(ValueError, match="got ThreadingBackend: threads of one process share torch's random stream"):
        with parallel_config(backend="threading"), Workers(jobs=2).ready():
            pass
    with pytest.raises(ValueError, match="jobs must be a number of cells at a time, or -1 for all cores, got 0"):
        with Workers(jobs=0).ready():
            pass
    with pytest.raises(ValueError, match="cluster is for --backend dask or ray, got 'tcp://a:1' with loky"):
        with Workers(cluster="tcp://a:1").ready():
            pass
    for backend, package in (("dask", "distributed"), ("ray", "ray")):
        if find_spec(package) is None:
            with pytest.raises(ValueError, match=f"backend {backend} needs the package {package}"):
                with Workers(backend=backend).ready():
                    pass


@pytest.mark.slow
def test_a_sweep_that_is_killed_leaves_nothing_running_and_goes_on_to_the_same_bits(tmp_path, orders):
    """With two workers; the same as without workers and without a kill."""
    whole = main(Config(tmp_path / "whole", orders))
    forget(orders)
    (orders / "wait-2").touch()
    out = tmp_path / "run"
    killed = start(tmp_path, out, orders, jobs=2)
    until(lambda: began(orders) == [0, 1, 2, 3] and len(list(out.glob("cells/*/step-*"))) == 3)
    killed.kill()
    killed.communicate()
    workers = {int(path.read_text()) for path in orders.glob("began-*")}
    until(lambda: not any(map(alive, workers)), seconds=30)
    forget(orders)
    again = start(tmp_path, out, orders, jobs=2)
    said, errors = again.communicate(timeout=200)
    assert again.returncode == 0, errors
    assert "3 of 4 cells are there" in said and began(orders) == [2]
    assert result(out) == result(tmp_path / "whole") and len(whole["rows"]) == 4


@pytest.mark.slow
def test_a_worker_that_dies_takes_its_cell_alone(tmp_path, orders):
    """Those beside it are ended with it, and done in the end."""
    (orders / "die-1").touch()
    out = tmp_path / "run"
    said = start(tmp_path, out, orders, jobs=2)
    printed, errors = said.communicate(timeout=300)
    assert said.returncode == 1 and "1 of 4 cells failed (seed 1: a worker process died (SIGKILL(-9)));" in errors
    assert "seed 1: failed: a worker process died" in printed and "under way were: " in errors
    forget(orders)
    rows = main(Config(tmp_path / "whole", orders))["rows"]
    assert result(out)["runs"] == [rows[0], rows[2], rows[3]]


@pytest.mark.slow
def test_an_interrupt_ends_the_workers(tmp_path, orders):
    (orders / "wait-3").touch()
    out = tmp_path / "run"
    running = start(tmp_path, out, orders, jobs=2)
    until(lambda: len(list(out.glob("cells/*/step-*"))) == 3 and 3 in began(orders))
    os.killpg(running.pid, signal.SIGINT)  # as from the keyboard: to the workers as well
    printed, _ = running.communicate(timeout=60)
    assert running.returncode != 0
    assert re.search("[23] of 4 cells are done and kept", printed)  # one may be written and not yet be told of
    workers = {int(path.read_text()) for path in orders.glob("began-*")}
    until(lambda: not any(map(alive, workers)), seconds=30)
