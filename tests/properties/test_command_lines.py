"""A mistake on the command line of any script ends in a message that names the option, before anything is done."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import settings as running
from hypothesis import strategies as st
from safetensors.torch import save_file

from benchmarks import __main__ as benchmarks
from dlvm.experiments import evidence, objective_table, study, train
from dlvm.experiments.data import _torchvision, digits, larochelle
from dlvm.experiments.options import command_line
from dlvm.experiments.options.command_line import BETWEEN, DIFFERENT, LEAST, POSITIVE, SOME, check_options
from dlvm.experiments.runs import restore
from dlvm.experiments.runs.folder import Run
from dlvm.experiments.runs.recipe import Recipe
from dlvm.experiments.setups.options import settings_of

NAMES = (
    "train compare_guides compare_bounds hierarchy priors likelihoods mixtures toy_posteriors evidence gaps "
    "rate_distortion estimator_snr autoregressive imputation inpainting learning_rules autoencoders "
    "unlearning semi_supervised sentences sequences"
).split()
TEXTS = ["x", "", "1,2", "--", "0x10", "1e", "None1", "½", "[1]"]
WHOLE = [*TEXTS, "nan", "inf", "2.5", "1e3"]
COUNTS = [*WHOLE, "0", "-1", str(10**30)]
REALS = [*TEXTS, "nan", "inf", "-inf", "1e999"]
ABOVE = [*REALS, "0", "-1e-3", "-0.0"]
WORDS = ["", "x", "Diagonal", "diagonal ", "None", "0", "../iaf", "diagonal,iaf"]
LISTS = ["0", "-3", "8 0", "0 8", "x", "8 x", "nan", "2.5", "8,8", str(10**30)]
FLAGS = ["maybe", "2", "yes", "None"]

BAD = {
    **dict.fromkeys(
        [
            name
            for name in LEAST
            if name not in ("baseline_epochs", "warm_up", "perturbation", "order", "receptive_field", "near")
            and not name.startswith("label")
        ],
        COUNTS,
    ),
    **dict.fromkeys(("lr", "clip_norm", "skip_norm", "scale", "seconds", "temperature", "block_seconds"), ABOVE),
    **dict.fromkeys(("baseline_epochs", "warm_up", "receptive_field", "near"), [*TEXTS, "-1", "nan", "inf"]),
    **dict.fromkeys(("hidden", "encoder", "sizes", "iaf_width"), LISTS),
    **dict.fromkeys(("tensorboard", "dry_run"), FLAGS),
    "callback": ["nothing", "nothing:Here", "dlvm.nets:MLP", "7"],
    **dict.fromkeys(("overwrite", "checkpoint", "progress", "mean_bias", "compile_twins", "quick", "score_all"), FLAGS),
    **dict.fromkeys(
        ("guide", "objective", "estimator", "activation", "likelihood", "prior", "binarize", "optimizer"), WORDS
    ),
    **dict.fromkeys(("engine", "precision", "model", "richer", "backend", "attribute"), WORDS),
    **dict.fromkeys(("labels", "labels_seed"), [*TEXTS, "-1", "nan", "inf", str(10**30)]),
    "label_weight": [*REALS, "-0.1"],
    "weight": ABOVE,
    "free_bits": [*REALS, "-0.1"],
    "annealing": WORDS,
    "erase": WHOLE,
    "quadrants": ["0", "4", "x", "1 1", "2.5"],
    "four_steps": [*COUNTS, "2"],
    **dict.fromkeys(("layer_particles", "discrete_particles", "calibration_data", "repeats"), [*COUNTS, "1"]),
    "repetitions": COUNTS,
    "lr_decay": [*ABOVE, "1e200"],
    "draws": [*COUNTS, "99"],
    "perturbation": [*REALS, "-0.01"],
    "alpha": [*REALS, "1.5"],
    "beta": [*REALS, "-0.1", "1.1"],
    "sleep": [*REALS, "-0.1", "1.1"],
    "order": [*REALS, "0.5", "-2"],
    **dict.fromkeys(("hidden_share", "resample_below"), [*REALS, "-0.1", "1.1"]),
    "labelled_share": [*REALS, "-0.1", "1"],
    "share": [*REALS, "0", "1", "-0.1", "2"],
    "seed": [*WHOLE, "-1", str(2**32), str(10**30)],
    "threads": [*COUNTS, "100000"],
    "jobs": [*WHOLE, "0"],
    "device": ["", "gpu", "cuda:99", "meta", "cpu:x", "-1", "0.5"],
    "cluster": ["", "tcp://host:8786"],
    "data": ["", " ", "mnits", "digits.txt", "none.npy", "FOLDER", "FOLDER/none.csv", "FILE", "1"],
    "data_dir": ["FILE", "FOLDER/none", "FILE/below", "~nobody-of-this-name"],
    "key": ["", "x"],
    **dict.fromkeys(("columns", "drop_columns", "index_column", "label_column", "missing", "split_column"), ["x"]),
    **dict.fromkeys(("sequence_column", "time_column", "text_column"), ["x"]),
    "time_step": ABOVE,
    "lines": FLAGS,
    "pool": COUNTS,
    "ex_post": WORDS,
    "out": ["FILE", "FILE/below", "/proc/none/x"],
    "run": ["FILE", "FOLDER", "FOLDER/none", ""],
    "guides": [*WORDS, "iaf iaf", "diagonal x"],
    "objectives": ["elbow", "", "iwae:drag", "elbo elbo", "elbo elbo:total", "rws:stl", "iwae:dreg:dreg", ":"],
    "priors": [*WORDS, "vamp vamp"],
    "likelihoods": [*WORDS, "normal normal"],
    **dict.fromkeys(("dequantise", "net"), WORDS),
    "by_column": ["x", "0=", "=normal", "0=x"],
    **dict.fromkeys(("kind", "covariance", "net"), WORDS),
    "floor": [*REALS, "-0.1"],
    "ways": [*WORDS, "em em"],
    "rules": [*WORDS, "em em"],
    "subjects": [*WORDS, "ppca ppca"],
    "phi_lr": ABOVE,
    "betas": [*ABOVE, "1 1", "1 0", "1 nan"],
    "decoders": [*WORDS, "mlp mlp"],
    "word_dropout": [*REALS, "-0.1", "1"],
    "free_nats": [*REALS, "-0.1"],
    "holes": [*WORDS, "random random"],
    "slope": REALS,
    "layers": ["0", "-1", "2 2", "6", "x", "1 2.5", "nan"],
    "models": [*WORDS, "vae vae"],
    "fields": ["-1", "x", "2 2", "1 2.5", "nan"],
    "orders": [*WORDS, "chain chain"],
    "parts": [*WORDS, "toy toy", "energies energies"],
    "energies": ["U5", "u1", "", "U1 U1"],
    "families": [*WORDS, "planar planar"],
    "four_families": [*WORDS, "iaf iaf"],
    "encoders": ["0", "-1", "8 8", "8 0", "x", "2.5"],
    "particles": ["0", "-1", "4 4", "1", "x", "2.5", "nan", "4 0"],
    "toy_particles": ["0", "4 4", "1", "x", "4 -4"],
    "temperatures": ["0", "-1", "x", "nan", "9 9", "9 0"],
    "only": ["", "x", "step,x", "step,step", ","],
    "engines": ["", "x", "eager,eager", "eager,x", ";"],
    "cases": ["nothing-of-the-kind", "case;kind"],
}
MEANS = {"data_dir": ["--data", "mnist"]}
QUICKLY = {("hierarchy", "out"): ["--layers", "2", "--orders", "chain"]}


class Taken(Exception):
    """The value was accepted: a run begins."""


class Script(NamedTuple):
    """A script's options, and how it is started and kept from beginning a run."""

    name: str
    config: type
    start: Callable[[], object]
    hold: Callable[[pytest.MonkeyPatch], object]


def of_experiments(name: str) -> Script:
    module = importlib.import_module(f"dlvm.experiments.{name}")
    opens = train if name == "train" else study

    def run(*settings, **more) -> None:
        Run(*settings, **more)
        raise Taken

    return Script(name, module.Config, lambda: command_line.start(module.main, module.Config, name),
                  lambda patch: patch.setattr(opens, "Run", run))  # fmt: skip


def taken(*_, **__) -> None:
    raise Taken


SCRIPTS = [
    *map(of_experiments, NAMES),
    Script(
        "objective_table",
        objective_table.Config,
        lambda: command_line.start(objective_table.main, objective_table.Config, "objective_table"),
        lambda patch: patch.setattr(objective_table, "table", taken),
    ),
    Script(
        "benchmarks",
        benchmarks.Config,
        benchmarks.start,
        lambda patch: patch.setattr(benchmarks, "RUN", dict.fromkeys(benchmarks.RUN, taken)),
    ),
]
BY_NAME = {script.name: script for script in SCRIPTS}


def options_of(config: type) -> list[str]:
    """The options of a script, and those of its usual model."""
    own = [field for field in dataclasses.fields(config) if field.name != "setup"]
    usual = getattr(config(), "setup", None)
    return [field.name for field in (*own, *(dataclasses.fields(usual) if usual else ()))] + ["model"] * bool(usual)


OPTIONS = [(script.name, option) for script in SCRIPTS for option in options_of(script.config)]


def no_network(*_, **__) -> None:
    raise OSError("no network")


def typed(option: str, value: str, folder: Path) -> list[str]:
    """An option and its value as on a command line; several values are separated by spaces."""
    value = value.replace("FILE", str(folder / "file.txt")).replace("FOLDER", str(folder / "full"))
    word = f"--{option.replace('_', '-')}"
    return [word, *value.split(" ")] if " " in value.strip() and ";" not in value else [f"{word}={value}"]


def ended(script: Script, line: list[str], folder: Path) -> tuple[object, str]:
    """The exit status or message, and what was written to stderr."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        patch.setattr(sys, "argv", [script.name, *line])
        patch.setattr(_torchvision, "download", no_network)
        patch.setattr(larochelle, "download", no_network)
        patch.chdir(folder)
        script.hold(patch)
        with pytest.raises(SystemExit) as caught:
            script.start()
    return caught.value.code, said.getvalue()


def hold(name: str, option: str, value: str, folder: Path) -> None:
    out = folder / "run"
    line = [
        *typed(option, value, folder),
        *(MEANS.get(option, []) if (name, "data") in OPTIONS else []),
        *QUICKLY.get((name, option), []),
    ]
    code, said = ended(BY_NAME[name], line + ["--out", str(out)] * (option != "out"), folder)
    if code == 2:
        message = " ".join(re.sub("[│─╭╮╰╯]|--+ ", " ", said).split())
    else:
        message = str(code)
        assert message.startswith("error: ") and "\n" not in message and "Traceback" not in said, message
    too_many = f"Unrecognized options: {value.split(' ')[-1]}"
    named = re.search(rf"(?<![\w-]){option}\b|--{option.replace('_', '-')}\b|{re.escape(too_many)}", message)
    assert named, f"{line}: {message}"
    assert len(message) > 30 and not out.exists()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With a file, and a folder that holds what no run wrote."""
    folder = tmp_path_factory.mktemp("lines")
    (folder / "file.txt").write_text("no run's")
    (folder / "full").mkdir()
    (folder / "full" / "x.csv").write_text("a,b\n1,x\n")
    return folder


def test_every_option_of_every_script_has_bad_values():
    known = {option for _, option in OPTIONS}
    assert known == set(BAD), f"no bad value: {sorted(known - set(BAD))}; no such option: {sorted(set(BAD) - known)}"
    assert all(BAD.values())


def test_what_is_asked_of_options_is_asked_of_some():
    known = {option for _, option in OPTIONS}
    assert {*LEAST, *POSITIVE, *BETWEEN, *DIFFERENT, *SOME} <= known


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_the_defaults_are_no_mistake(script):
    check_options(script.config())


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_a_wrong_value_ends_with_a_message_that_names_the_option(name, folder):
    options = [option for script, option in OPTIONS if script == name]

    @running(max_examples=10, deadline=None, derandomize=True, database=None)
    @given(st.sampled_from(options).flatmap(lambda option: st.tuples(st.just(option), st.sampled_from(BAD[option]))))
    def property(wrong):
        hold(name, *wrong, folder)

    property()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "option"), OPTIONS, ids="-".join)
def test_and_so_does_every_other(name, option, folder):
    for value in BAD[option]:
        hold(name, option, value, folder)


TOGETHER = {
    "patience": ["--objective", "vr_max"],
    "warm-up": ["--warm-up", "5", "--epochs", "1"],
    "likelihood": ["--binarize", "none"],
    "checkpoint": ["--checkpoint-every", "5"],
    "estimator": ["--objective", "rws", "--estimator", "stl"],
    "width": ["--guide", "iaf", "--iaf-width", "1"],
    "groups": ["--objective", "miwae", "--num-particles", "3"],
}


@pytest.mark.parametrize("word", TOGETHER)
def test_options_that_do_not_go_together_are_refused_before_a_folder_is_made(word, folder):
    code, _ = ended(BY_NAME["train"], [*TOGETHER[word], "--out", "run"], folder)
    assert str(code).startswith("error: ") and word in code and not (folder / "run").exists()


# --- folders of runs


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """What a training leaves that had no time."""
    folder, config = tmp_path_factory.mktemp("runs"), train.Config.of(hidden=(5,))
    torch.manual_seed(0)
    for name, module in zip(("model", "guide"), Recipe.by(config).pair(digits().train), strict=True):
        save_file(module.state_dict(), folder / f"{name}.safetensors")
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in settings_of(config).items()}
    (folder / "config.json").write_text(json.dumps({"config": settings}))
    return folder


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "guide.safetensors"])
def test_a_damaged_run_is_restored_as_it_was_or_refused(file, run, tmp_path):
    whole = {path.name: path.read_bytes() for path in run.iterdir()}
    header = len(whole[file]) if file == "config.json" else int.from_bytes(whole[file][:8], "little")
    expected = weights_of(run)

    @running(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(st.floats(0, 1), st.binary(min_size=1, max_size=2), st.booleans())
    def property(where, bytes_, cut):
        at, content = int(where * header), whole[file]
        broken = content[:at] if cut else content[:at] + bytes_ + content[at + len(bytes_) :]
        for name, kept in whole.items():
            (tmp_path / name).write_bytes(broken if name == file else kept)
        try:
            found = weights_of(tmp_path)
        except ValueError as error:
            assert str(error).startswith("folder must be that of a run of dlvm.experiments.train")
        else:
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)) or file != "config.json"

    property()


def weights_of(folder: Path) -> list[torch.Tensor]:
    return [value for module in restore.restore(folder) for value in module.state_dict().values()]


def test_weights_that_do_not_go_with_a_run_are_refused_before_a_folder_is_made(run, tmp_path):
    for path in run.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = evidence.Config(run=tmp_path, out=tmp_path / "out")
    evidence.checked(config)
    for broken in (b"", (tmp_path / "model.safetensors").read_bytes()):
        (tmp_path / "guide.safetensors").write_bytes(broken)
        with pytest.raises(ValueError, match="must be that of a run of .*experiments.train, .* that go together, got"):
            evidence.main(config)
    assert not (tmp_path / "out").exists()
