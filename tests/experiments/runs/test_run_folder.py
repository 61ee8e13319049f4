"""Run folders, tables and the report: what is on disk, and what is refused."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import re

import pytest
import torch
from matplotlib.figure import Figure
from rich.console import Console

from dlvm.experiments.runs.folder import Run, plain
from dlvm.experiments.runs.report import Table, print_table


def read(path):
    """Strict JSON: ``NaN`` and ``Infinity`` are not part of the standard."""

    def refuse(token):
        raise ValueError(token)

    return json.loads(path.read_text("utf-8"), parse_constant=refuse)


def small_figure():
    fig = Figure(figsize=(1, 1))
    fig.subplots().plot([0, 1])
    return fig


def table(**changes):
    settings = {
        "columns": ["guide", "log p(x)", "gap"],
        "rows": [
            ["Diagonal", (-97.104, 0.021), 1.5],
            ["IAF <b>", (-95.333, 0.018), 0.25],
            ["lost", None, math.nan],
        ],
        "caption": "Test data & <seeds>.",
        "formats": {"log p(x)": ".2f", "gap": ".1f"},
        "highlight": {"log p(x)": max, "gap": min},
    }
    return Table(**{**settings, **changes})


def test_config_is_on_disk_as_soon_as_the_run_exists(tmp_path):
    Run(tmp_path / "a" / "b", {"lr": 1e-3, "seeds": (0, 1), "bound": -math.inf})
    config = read(tmp_path / "a" / "b" / "config.json")
    assert config["config"] == {"lr": 1e-3, "seeds": [0, 1], "bound": "-inf"}
    assert config["versions"]["torch"] == torch.__version__
    assert config["command"].startswith("python ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", config["date"])


def test_each_record_is_a_line_on_disk_when_log_returns(tmp_path):
    run = Run(tmp_path, {})
    for epoch in (1, 2):
        run.log(epoch=epoch, valid=torch.tensor(-20.5), train=math.nan)
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
        assert len(lines) == epoch
        assert json.loads(lines[-1]) == {"epoch": epoch, "valid": -20.5, "train": "nan"}
    assert math.isnan(float(json.loads(lines[-1])["train"]))


def test_result_survives_a_write_that_fails(tmp_path, monkeypatch):
    run = Run(tmp_path, {})
    run.result(elbo=-20.0)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        run.result(elbo=-19.0)
    assert read(tmp_path / "result.json") == {"elbo": -20.0}


def test_a_value_json_cannot_express_is_named_and_writes_nothing(tmp_path):
    run = Run(tmp_path, {})
    with pytest.raises(TypeError, match=r"record\['net'\]\[1\]: expected numbers, text or tensors, got object"):
        run.log(net=[1, object()])
    assert not (tmp_path / "metrics.jsonl").exists()


def test_plain_covers_what_configs_hold():
    @dataclasses.dataclass
    class Settings:
        lr: float
        where: torch.device

    values = {
        "s": Settings(0.1, torch.device("cpu")),
        "x": torch.tensor([[1.0, math.inf]]),
        3: torch.float32,
        "n": None,
    }
    assert plain(values) == {
        "s": {"lr": 0.1, "where": "cpu"},
        "x": [[1.0, "inf"]],
        "3": "torch.float32",
        "n": None,
    }


def test_a_folder_that_no_run_wrote_is_never_touched(tmp_path):
    (tmp_path / "config.json").write_text('{"config": 1}')
    (tmp_path / "thesis.png").write_text("precious")
    with pytest.raises(ValueError, match="folder: .* holds files that no run wrote; choose another"):
        Run(tmp_path, {}, overwrite=True)
    assert (tmp_path / "thesis.png").read_text() == "precious"
    assert (tmp_path / "config.json").read_text() == '{"config": 1}'


def test_a_run_is_overwritten_only_on_request_and_then_wholly(tmp_path):
    first = Run(tmp_path, {"seed": 0})
    first.log(epoch=1)
    first.result(elbo=-1.0)
    first.figure("curves", small_figure(), "")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds a run; choose another or overwrite=True"):
        Run(tmp_path, {"seed": 1})
    assert read(tmp_path / "config.json")["config"] == {"seed": 0}
    with pytest.raises(TypeError, match=r"config\['config'\]\['f'\]"):
        Run(tmp_path, {"f": print}, overwrite=True)
    assert (tmp_path / "result.json").exists()
    Run(tmp_path, {"seed": 1}, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "notes.txt"]
    assert read(tmp_path / "config.json")["config"] == {"seed": 1}


@pytest.mark.parametrize("name", ["../out", "a/b", "", "a.png"])
def test_a_figure_stays_in_its_folder(tmp_path, name):
    with pytest.raises(ValueError, match="name: expected letters, digits"):
        Run(tmp_path, {}).figure(name, small_figure(), "")


def test_console_and_page_show_the_same_cells():
    out = io.StringIO()
    print_table(table(), Console(file=out, width=40))
    for row in table().text:
        assert any(all(cell in line for cell in row) for line in out.getvalue().splitlines())
    assert table().text[2] == ["lost", "\N{EN DASH}", "nan"]


def test_a_table_too_wide_for_the_console_loses_no_value():
    out = io.StringIO()
    wide = Table([f"column {i}" for i in range(12)], [[f"value-{i}" for i in range(12)]], "Wide.")
    print_table(wide, Console(file=out, width=40))
    assert all(f"value-{i}" in out.getvalue() for i in range(12))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": [["IAF", 1.0]]}, r"rows\[0\]: expected 3 cells, got 2"),
        ({"formats": {"gap": ".1f"}}, r"formats: expected a format for column 'log p\(x\)'"),
        ({"formats": {"Gap": ".1f"}}, r"formats: expected names among .* got \['Gap'\]"),
        ({"highlight": {"Gap": min}}, r"highlight: expected names among .* got \['Gap'\]"),
    ],
)
def test_a_table_that_does_not_fit_together_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        table(**changes)


def test_ties_are_all_highlighted_and_nan_never():
    tied = Table(["gap"], [[0.5], [math.nan], [0.5], [0.7]], "", {"gap": ".1f"}, {"gap": min})
    assert tied.best == {(0, 0), (2, 0)}
