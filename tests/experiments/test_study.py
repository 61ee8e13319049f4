"""What scripts have in common: options before a folder, an interrupt, cells that know their code, a quick --help."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyro
import pytest
import torch
from matplotlib.figure import Figure

from dlvm.experiments import objective_table
from dlvm.experiments.measures.over_seeds import over_seeds
from dlvm.experiments.options.command_line import check_least
from dlvm.experiments.options.common import FolderOptions
from dlvm.experiments.options.jobs import SweepOptions
from dlvm.experiments.runs.report import Table
from dlvm.experiments.study import Study
from dlvm.experiments.sweeps.cells import COMPUTING, ROOT, SHARED

SCRIPTS = sorted(p.stem for p in (ROOT / "experiments").glob("[a-z]*.py") if "__main__" in p.read_text("utf-8"))
HEAVY = ("matplotlib", "sklearn", "torchvision", "torch._inductor", "torch._dynamo")
TELLS = {"experiments/study.py", "experiments/guides_report.py"}
TELLS |= {f"experiments/runs/{name}.py" for name in ("folder", "report", "restore")}
TELLS |= {f"experiments/sweeps/{name}.py" for name in ("cells", "scheduler", "sweep", "workers")}


@dataclass(frozen=True)
class Config(FolderOptions):
    """Options of a script that does nothing."""

    epochs: int = 1


def study_of(folder: Path, **settings) -> Study:
    study = Study(Config(out=folder / "run", **settings))
    study.open()
    return study


def test_a_wrong_option_is_found_before_a_folder_is_made(tmp_path):
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0; change --epochs"):
        Study(Config(out=tmp_path / "run", epochs=0))
    Study(Config(out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    assert json.loads((study_of(tmp_path).run.folder / "config.json").read_text())["config"]["epochs"] == 1


def test_a_sweep_goes_on_and_other_scripts_do_not(tmp_path):
    for options, goes_on in ((SweepOptions, True), (FolderOptions, False)):
        folder = tmp_path / options.__name__
        Study(options(out=folder)).open().log(epoch=1)
        again = Study(options(out=folder))
        if goes_on:
            again.open()
            continue
        with pytest.raises(ValueError, match="holds a run; choose another or overwrite"):
            again.open()
        Study(options(out=folder, overwrite=True)).open()


def test_an_interrupt_ends_the_measuring_where_there_is_something_to_report(tmp_path, capsys):
    study, rows = study_of(tmp_path), []
    with study.interruptible(rows):
        pyro.param("inside", torch.zeros(1))
        rows.append(1)
        raise KeyboardInterrupt
    assert rows == [1] and "interrupted: what is done is reported" in capsys.readouterr().out
    assert "inside" not in pyro.get_param_store()
    with pytest.raises(KeyboardInterrupt), study.interruptible([]):
        raise KeyboardInterrupt
    with pytest.raises(ZeroDivisionError), study.interruptible(rows):
        raise ZeroDivisionError
    with study.interruptible([]):
        pass


def test_a_report_has_tables_figures_and_verdict_and_says_where_it_is(tmp_path, capsys):
    study = study_of(tmp_path)
    table = Table(["guide", "log p(x)"], [["IAF", -1.5]], "Of one.", {"log p(x)": ".2f"})
    study.show([table])
    study.report("Which?", "Because.", [table], "IAF is best.", iter([("dot", Figure(), "A dot.")]))
    page, printed = (tmp_path / "run" / "report.html").read_text(), capsys.readouterr().out
    assert all(text in page for text in ("Which?", "Because.", "-1.50", "A dot.", "IAF is best."))
    assert (tmp_path / "run" / "dot.png").exists()
    assert "-1.50" in printed and printed.index("IAF is best.") < printed.index("report: ")


def test_seeds_are_averaged_and_their_errors_shrink():
    rows = [
        {"guide": name, "log_px": value, "log_px_se": 0.3, "kl": {"z1": value, "z2": 1.0}}
        for name, value in (("a", -20.0), ("b", -30.0), ("a", -22.0), ("a", -24.0), ("a", -26.0))
    ]
    found = over_seeds(rows, "guide")
    assert list(found) == [("a",), ("b",)] and found[("a",)].first is rows[0]
    a, b = found.values()
    assert a.log_px == -23 and a.log_px_se == pytest.approx(0.15) and a.all("log_px") == [-20, -22, -24, -26]
    assert a.spread == pytest.approx((20 / 3) ** 0.5) and b.spread is None
    assert a.means("kl") == {"z1": -23.0, "z2": 1.0}
    assert len(over_seeds(rows, "guide", "log_px")) == 5


def test_a_number_below_what_a_script_needs_is_named():
    check_least(Config(epochs=3), epochs=3)
    with pytest.raises(ValueError, match="epochs must be at least 4, got 3"):
        check_least(Config(epochs=3), epochs=4)


def imports(path: Path) -> set[Path]:
    """Files of the house that a file imports, at its top: what a function imports to draw computes no number."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dlvm."):
            place = ROOT / Path(*node.module.split(".")[1:])
            names = [place / alias.name for alias in node.names] + [place]
            found |= {p.with_suffix(".py") for p in names if p.with_suffix(".py").is_file()}
            found |= {p / "__init__.py" for p in names if (p / "__init__.py").is_file()}
    return found


def test_cells_are_known_by_all_code_that_computes_their_numbers():
    """Whatever a script of cells imports is in the checksum of its cells, or does no more than keep and tell."""
    sweeping = [ROOT / "experiments" / f"{name}.py" for name in SCRIPTS]
    sweeping = [path for path in sweeping if "Cell(" in path.read_text("utf-8")]
    assert {path.stem for path in sweeping} == {
        "autoencoders",
        "compare_bounds",
        "compare_guides",
        "hierarchy",
        "imputation",
        "inpainting",
        "learning_rules",
        "likelihoods",
        "priors",
        "semi_supervised",
        "sentences",
        "sequences",
    }
    reached, waiting = set(), set(sweeping)
    while waiting:
        reached |= waiting
        waiting = {to for path in waiting for to in imports(path)} - reached
    known = (*COMPUTING, *(f"experiments/{name}" for name in SHARED))
    names = {path.relative_to(ROOT).as_posix() for path in reached - set(sweeping)}
    unknown = {name for name in names if not any(name == k or name.startswith(f"{k}/") for k in known)} - TELLS
    assert not {name for name in unknown if not name.endswith("__init__.py")}
    assert "experiments/measures/layer_contents.py" in names and "inference/training/fit.py" in names


def test_help_loads_nothing_that_only_a_run_needs():
    code = f"""
import importlib, io, sys
from contextlib import redirect_stdout
from dlvm.experiments.options.command_line import start
for name in {SCRIPTS}:
    module = importlib.import_module("dlvm.experiments." + name)
    sys.argv = [name, "--help"]
    try:
        with redirect_stdout(io.StringIO()) as said:
            start(module.main, module.Config, name)
    except SystemExit:
        assert "--help" in said.getvalue(), name
    loaded = [heavy for heavy in {HEAVY} if heavy in sys.modules]
    assert not loaded, (name, loaded)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_a_table_without_its_page_is_told_so(tmp_path, monkeypatch):
    """As where the package is installed without docs/."""
    monkeypatch.setattr(objective_table, "DOCUMENT", tmp_path / "docs" / "objectives.md")
    with pytest.raises(ValueError, match="out must be a Markdown file .*installed without its docs/; change --out"):
        objective_table.main(objective_table.Config(out=objective_table.DOCUMENT))
    with pytest.raises(ValueError) as raised:
        objective_table.main(objective_table.Config(out=tmp_path / "other.md"))
    assert "docs/" not in str(raised.value)
