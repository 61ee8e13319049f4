"""Who else is told of a run, and a run that is only looked at."""

from __future__ import annotations

import json
import sys
import types

import pytest

from dlvm.experiments import train
from dlvm.experiments.runs.callbacks import Callbacks, TensorBoard, callbacks_of
from dlvm.experiments.train import Config

TINY = {"hidden": (8,), "z_dim": 2, "epochs": 2, "eval_particles": 2, "eval_data": 20}


class Listening:
    heard: list = []

    def begin(self, settings):
        self.heard.append(("begin", settings))

    def epoch(self, record):
        self.heard.append(("epoch", record))

    def end(self, result):
        self.heard.append(("end", result))


class Failing(Listening):
    def epoch(self, record):
        raise KeyError("token")


@pytest.fixture
def mine(monkeypatch):
    """A module of somebody's own."""
    module = types.ModuleType("somebodys")
    module.Listening, module.Failing, module.Deaf = Listening, Failing, type("Deaf", (), {"begin": print})
    module.__spec__ = types.SimpleNamespace(name="somebodys")
    monkeypatch.setitem(sys.modules, "somebodys", module)
    monkeypatch.setattr(Listening, "heard", [])
    return module


def test_a_callback_hears_what_the_files_of_the_run_hold(mine, tmp_path):
    train.main(Config.of(**TINY, callback=("somebodys:Listening",), out=tmp_path / "run"))
    kinds = [kind for kind, _ in Listening.heard]
    assert kinds == ["begin", "epoch", "epoch", "end"]
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [told["valid"] for kind, told in Listening.heard if kind == "epoch"] == [r["valid"] for r in records]
    assert Listening.heard[0][1]["z_dim"] == 2 and Listening.heard[-1][1]["elbo"] == result["elbo"]


def test_one_that_fails_ends_the_run_by_its_name_and_what_was_done_is_there(mine, tmp_path):
    with pytest.raises(ValueError, match="callback: Failing.epoch raised KeyError: 'token'"):
        train.main(Config.of(**TINY, callback=("somebodys:Failing",), out=tmp_path / "run"))
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "word, words",
    [
        (
            "somebodys:Deaf",
            r"must have begin\(settings\), epoch\(record\) and end\(result\), got none of the name epoch",
        ),
        ("somebodys:Lost", "somebodys has no Lost"),
        ("somebodys", "callback must be written as module:Class"),
    ],
)
def test_a_callback_that_is_none_is_refused_before_a_folder_is_made(mine, tmp_path, word, words):
    with pytest.raises(ValueError, match=words):
        train.main(Config.of(**TINY, callback=(word,), out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_tensorboard_gets_numbers_alone(monkeypatch, tmp_path):
    written = []

    class Writer:
        def __init__(self, folder):
            written.append(folder)

        def add_text(self, name, text):
            written.append(name)

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def close(self):
            written.append("closed")

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    told = Callbacks([TensorBoard(tmp_path)])
    told.begin({"lr": 0.1})
    told.epoch({"epoch": 3, "valid": -2.0, "note": "x", "khat": float("nan"), "best": True})
    told.end({"elbo": -1.0})
    folder = str(tmp_path / "tensorboard")
    assert written == [folder, "settings", ("valid", -2.0, 3), ("result/elbo", -1.0, 0), "closed"]


def test_without_the_package_it_is_said_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"tensorboard is not installed.*pip install 'pyro-dlvm\[tensorboard\]'"):
        callbacks_of((), True, tmp_path)


def test_a_run_that_is_only_looked_at_says_what_it_would_be_and_writes_nothing(tmp_path, capsys):
    train.main(Config.of(model="hvae", sizes=(5, 3), hidden=(8, 8), dry_run=True, out=tmp_path / "run"))
    said = capsys.readouterr().out
    assert "z2 (3,); z1 (5,)" in said and "1,297 for training" in said and "all checks passed" in said
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="guide point gives points"):
        train.main(Config.of(guide="point", dry_run=True, out=tmp_path / "run"))
