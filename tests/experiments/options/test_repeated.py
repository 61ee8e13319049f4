"""Settings of a run taken again, shown, and run without a word."""

from __future__ import annotations

import json
import sys

import pytest

from dlvm.experiments import train
from dlvm.experiments.compare_guides import Config as Guides
from dlvm.experiments.options.command_line import parsed, start
from dlvm.experiments.options.repeated import beside, shown
from dlvm.experiments.setups.options import settings_of
from dlvm.experiments.train import Config


def asked(config, words):
    said = beside(words)
    return parsed(config, said.rest, "script", said.settings)


@pytest.mark.parametrize(
    "words",
    [
        ["--model", "hvae", "--sizes", "5", "3", "--lr", "0.01", "--patience", "None"],
        ["--z-dim", "3", "--hidden", "7", "--data-dir", "somewhere", "--checkpoint"],
        ["--model", "hidden_markov", "--data", "jsb", "--states", "4", "--guide", "own"],
    ],
)
def test_what_a_run_was_made_with_is_taken_again_and_what_is_said_beside_changes_it(words, tmp_path):
    first = asked(Config, words)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"config": settings_of(first)}, default=str))
    for path in (file, tmp_path):
        assert asked(Config, ["--config", str(path)]) == first
    changed = asked(Config, [f"--config={file}", "--epochs", "3"])
    assert changed.epochs == 3 and settings_of(changed) == settings_of(first) | {"epochs": 3}


def test_another_model_leaves_the_options_of_the_first_behind(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"config": settings_of(asked(Config, ["--z-dim", "3", "--lr", "0.5"]))}, default=str))
    other = asked(Config, ["--config", str(file), "--model", "hvae"])
    assert other.lr == 0.5 and type(other.setup).__name__ == "HVAESetup"


def test_what_is_shown_can_be_taken_again(tmp_path):
    for config in (Config, Guides):
        first = asked(config, ["--lr", "0.02"])
        file = tmp_path / "shown.json"
        file.write_text(shown(first))
        assert asked(config, ["--config", str(file)]) == first


@pytest.mark.parametrize(
    "text, words",
    [
        ("{", "config must be the config.json of a run, got .*shown.json"),
        ("[]", "config must hold {option: value}"),
        ('{"config": {"epoch": 3}}', "config has epoch, which is no option of this script; did you mean epochs?"),
    ],
)
def test_a_file_that_holds_no_settings_is_refused(text, words, tmp_path):
    file = tmp_path / "shown.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=words):
        asked(Config, ["--config", str(file)])


def test_settings_are_printed_in_place_of_a_run_and_a_quiet_run_prints_nothing(monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(sys, "argv", ["train", "--print-config", "--z-dim", "5"])
    start(ran.append, Config, "train")
    assert not ran and json.loads(capsys.readouterr().out)["config"]["z_dim"] == 5
    monkeypatch.setattr(sys, "argv", ["train", "--quiet"])
    start(lambda config: (ran.append(config), print("much")), Config, "train")
    assert len(ran) == 1 and capsys.readouterr().out == ""


def test_a_process_ends_with_a_number_that_says_how(monkeypatch, capsys):
    def ends(error):
        def main(config):
            raise error

        monkeypatch.setattr(sys, "argv", ["train"])
        with pytest.raises(SystemExit) as ended:
            start(main, Config, "train")
        return ended.value.code

    assert ends(ValueError("z_dim")) == "error: z_dim"  # text: printed, and the process ends with 1
    assert ends(KeyboardInterrupt()) == 130 and "interrupted; what was done" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_is_repeated_has_the_same_numbers(tmp_path, monkeypatch):
    words = ["--data", "digits", "--epochs", "2", "--hidden", "8", "--z-dim", "2", "--eval-particles", "5"]
    for name, given in (("a", words), ("b", ["--config", str(tmp_path / "a")])):
        monkeypatch.setattr(sys, "argv", ["train", *given, "--out", str(tmp_path / name)])
        start(train.main, Config, "train")
    a, b = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("a", "b"))
    times = {key for key in a if "second" in key or "time" in key}
    assert {k: v for k, v in a.items() if k not in times} == {k: v for k, v in b.items() if k not in times}
