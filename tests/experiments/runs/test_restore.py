"""`dlvm.experiments.train` goes on after a kill, and what it leaves is loaded in one call."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dlvm.distributions import DiagonalNormal
from dlvm.experiments import train
from dlvm.experiments.options.guides import GuideOptions
from dlvm.experiments.runs.restore import keep, restore
from dlvm.guides import latents
from dlvm.inference import log_weights
from dlvm.inference.training.checkpointer import Keeper
from dlvm.models import VAE
from dlvm.nets import MLP


class PowerCut(BaseException):
    pass


def small(folder: Path, **settings) -> train.Config:
    common = dict(hidden=(16,), epochs=2, eval_particles=30, eval_data=20, out=folder)
    return train.Config.of(**common | settings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    return folder, train.main(small(folder, guide="iaf"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run of twelve epochs that nothing has broken off."""
    folder = tmp_path_factory.mktemp("whole")
    train.main(small(folder, epochs=12, patience=None))
    return folder


def weights(folder: Path) -> dict:
    return {w: {k: v.tolist() for k, v in load_file(folder / f"{w}.safetensors").items()} for w in ("model", "guide")}


def records(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line | {"seconds": 0, "engine": ""} for line in lines]


def test_a_finished_run_is_loaded_in_one_call(finished):
    folder, _ = finished
    before = torch.get_rng_state()
    model, guide = restore(folder)
    assert torch.equal(torch.get_rng_state(), before)
    for word, module in (("model", model), ("guide", guide)):
        kept = load_file(folder / f"{word}.safetensors")
        assert all(torch.equal(value, kept[name]) for name, value in module.state_dict().items())
    assert model(n=3).shape == (3, 64)
    guide(torch.zeros(5, 64))


@pytest.mark.parametrize("file", ["pair.json", "model.safetensors", "guide.safetensors"])
def test_a_damaged_pair_is_refused_by_the_name_of_the_file(finished, tmp_path, file):
    for name in ("pair.json", "config.json", "model.safetensors", "guide.safetensors"):
        content = (finished[0] / name).read_bytes()
        (tmp_path / name).write_bytes(content[:-9] if name == file else content)
    with pytest.raises(ValueError, match=f"folder must hold a pair that was saved whole, got .*{file}"):
        restore(tmp_path)


class Unkept(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.activation = nn.Linear(2, 2), lambda h: h


def test_of_a_pair_that_cannot_be_written_down_the_weights_are_kept(tmp_path, caplog):
    module = Unkept()
    with caplog.at_level("INFO", logger="dlvm"):
        keep(tmp_path, module, module, 2)
    assert torch.equal(load_file(tmp_path / "model.safetensors")["net.weight"], module.net.weight)
    assert "weights alone are kept" in (said := caplog.text) and "model.activation is a lambda" in said
    assert not (tmp_path / "pair.json").exists()


@pytest.fixture(scope="module")
def earlier(finished, tmp_path_factory):
    """A folder as runs left it that kept weights alone."""
    folder = tmp_path_factory.mktemp("earlier")
    (folder / "config.json").write_bytes((finished[0] / "config.json").read_bytes())
    for name, module in zip(("model", "guide"), restore(finished[0]), strict=True):
        save_file(module.state_dict(), folder / f"{name}.safetensors", {"x_dim": "64"})
    return folder


def test_an_earlier_run_is_loaded_as_before(finished, earlier):
    for old, new in zip(restore(earlier), restore(finished[0]), strict=True):
        assert type(old) is type(new)
        assert all(torch.equal(value, new.state_dict()[name]) for name, value in old.state_dict().items())


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "guide.safetensors"])
@pytest.mark.parametrize("how", ["missing", "cut", "another's"])
def test_a_folder_that_is_no_finished_run_is_refused(earlier, tmp_path, file, how):
    for name in ("config.json", "model.safetensors", "guide.safetensors"):
        content = (earlier / name).read_bytes()
        (tmp_path / name).write_bytes(content[:50] if (name, how) == (file, "cut") else content)
    if how == "missing":
        (tmp_path / file).unlink()
    if how == "another's" and file == "config.json":
        text = (tmp_path / file).read_text()
        (tmp_path / file).write_text(text.replace('"guide": "iaf"', '"guide": "full_rank"'))
    elif how == "another's":
        other = {"model": "guide", "guide": "model"}[file.split(".")[0]]
        (tmp_path / file).write_bytes((earlier / f"{other}.safetensors").read_bytes())
    with pytest.raises(ValueError, match="folder must be that of a run of .*train, with config.json, .* got"):
        restore(tmp_path)


def test_the_same_command_goes_on_after_a_cut(tmp_path, monkeypatch):
    def after_step(self, run):
        original(self, run)
        if run.progress.steps == 16:
            raise PowerCut

    expected = train.main(small(tmp_path / "whole", checkpoint=True))
    original = Keeper.after_step
    again = small(tmp_path / "cut", checkpoint=True, checkpoint_every=3)
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr(Keeper, "after_step", after_step)
        train.main(again)
    with pytest.raises(ValueError, match="holds a run; choose another or overwrite"):
        train.main(small(tmp_path / "cut", checkpoint=True, lr=0.1))
    with pytest.raises(ValueError, match="holds a run"):
        train.main(small(tmp_path / "cut"))
    assert train.main(again) == expected
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert records(tmp_path / "cut") == records(tmp_path / "whole")
    with pytest.raises(ValueError, match="holds a run"):
        train.main(again)


@pytest.mark.slow
def test_overwrite_begins_anew(tmp_path):
    train.main(small(tmp_path, checkpoint=True, epochs=1))
    train.main(small(tmp_path, checkpoint=True, overwrite=True, seed=4))
    assert [line["epoch"] for line in records(tmp_path)] == [1, 2]


def test_checkpoint_every_needs_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="checkpoint_every needs checkpoint; add --checkpoint"):
        train.main(small(tmp_path, checkpoint_every=2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGKILL, -9, ""),
        (signal.SIGTERM, 143, "run again to go on"),
        (signal.SIGINT, 130, "interrupted; stopped in epoch"),
    ],
)
def test_the_command_line_after_a_signal(whole, tmp_path, number, code, said):
    options = "--hidden 16 --epochs 12 --patience None --eval-particles 30 --eval-data 20 --checkpoint --out"
    command = [sys.executable, "-m", "dlvm.experiments.train", *options.split(), str(tmp_path / "cut")]
    settings = dict(cwd=Path(__file__).parents[3], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    with subprocess.Popen(command, **settings) as process:
        while len(list(tmp_path.glob("cut/checkpoints/step-*"))) < 2 and process.poll() is None:
            time.sleep(0.05)
        os.kill(process.pid, number)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == code and said in errors and "Traceback" not in errors
    assert not (tmp_path / "cut" / "result.json").exists()
    train.main(small(tmp_path / "cut", checkpoint=True, epochs=12, patience=None))
    assert weights(tmp_path / "cut") == weights(whole)
    assert records(tmp_path / "cut") == records(whole)


def test_a_normal_run_of_before_there_were_units_is_loaded_as_it_was(tmp_path):
    torch.manual_seed(0)
    model = VAE(2, DiagonalNormal(MLP(2, 8, activation=nn.Tanh, output=nn.Tanh), 5))
    guide = GuideOptions("diagonal").family(nn.Tanh)(latents(model, torch.zeros(3, 5)), MLP(5, 8, activation=nn.Tanh))
    for name, module in (("model", model), ("guide", guide)):
        save_file(module.state_dict(), tmp_path / f"{name}.safetensors", {"x_dim": "5"})
    settings = {"guide": "diagonal", "binarize": "default", "likelihood": "normal", "hidden": [8]}
    (tmp_path / "config.json").write_text(json.dumps({"config": settings}))
    x, found = 3 + torch.randn(6, 5), []
    for pair in ((model, guide), restore(tmp_path)):
        torch.manual_seed(1)
        found.append(log_weights(*pair, x, num_particles=4))
    assert torch.allclose(*found, rtol=1e-6)
