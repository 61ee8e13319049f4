"""Finished runs side by side, and their pages made anew."""

from __future__ import annotations

import json
import math

import pytest

from dlvm.experiments.compare import Config, difference, main, numbers, settings, verdict
from dlvm.experiments.figures import learning_curves
from dlvm.experiments.report import Config as ReportConfig
from dlvm.experiments.report import main as report
from dlvm.experiments.runs.finished import Finished, finished_below
from dlvm.experiments.runs.folder import Run
from dlvm.experiments.runs.report import Table


def finished(folder, log_px, se, guide="diagonal", **config):
    """A run as train leaves it."""
    run = Run(folder, {"guide": guide, "data": "digits", "out": str(folder), "setup": {"z_dim": 2}} | config)
    history = [{"epoch": epoch, "valid": log_px - 1 / epoch} for epoch in (1, 2)]
    for record in history:
        run.log(**record)
    measures = {"error": 3.0}
    run.result(
        log_px=log_px, log_px_se=se, elbo=log_px - 1, khat=math.nan, units=2, measures=measures, verdict="Fine. So."
    )
    run.figure("curves", learning_curves({"validation": [history]}), "Curves & <more>.")
    rows = [["a", (1.5, 0.25), math.nan], ["b", None, 2.0]]
    run.report(
        "Title", "Intro.", [Table(["x", "y", "z"], rows, "Rows.", {"y": ".2f", "z": ".1f"}, {"z": max})], "Fine. So."
    )
    return folder


@pytest.fixture
def two(tmp_path):
    return finished(tmp_path / "runs" / "a", -25.5, 0.03), finished(tmp_path / "runs" / "b", -25.0, 0.04, "iaf")


def test_differences_have_the_error_of_both_and_what_is_equal_is_left_out(two):
    runs = [Finished.read(folder) for folder in two]
    assert settings(runs).rows == [["guide", "diagonal", "iaf"]]  # out changes no number
    rows = {row[0]: row[1:] for row in numbers(runs).rows}
    assert set(rows) == {"log p(x)", "ELBO"}  # k-hat is nan, units and the error are the same
    assert rows["log p(x)"] == [(-25.5, 0.03), (-25.0, 0.04), (0.5, 0.05)]
    assert rows["ELBO"] == [-26.5, -26.0, 0.5]
    assert verdict(runs) == "log p(x) of b is higher than that of a by 0.500 ± 0.050 nats per datum."
    assert difference((1.0, None), (3.0, 0.1)) == (2.0, None)


def test_what_two_errors_cannot_tell_apart_is_not_called_higher(tmp_path):
    runs = [Finished.read(finished(tmp_path / name, value, 0.05)) for name, value in (("a", -25.0), ("b", -24.9))]
    assert "not told apart" in verdict(runs) and "+0.100 ± 0.071" in verdict(runs)


def test_runs_of_other_data_do_not_compare(tmp_path):
    runs = [Finished.read(finished(tmp_path / data, -25.0, 0.1, data=data)) for data in ("digits", "mnist")]
    assert verdict(runs).startswith("Their numbers do not compare: the runs differ in data")


def test_rows_of_a_comparison_are_means_over_seeds_with_their_error(tmp_path):
    run = Run(tmp_path / "sweep", {"data": "digits"})
    rows = [
        {"guide": g, "seed": s, "elbo": e, "elbo_se": 0.5}
        for g, s, e in (("iaf", 0, 1.0), ("iaf", 1, 3.0), ("full", 0, 2.0))
    ]
    run.result(runs=rows, failed=[], verdict="")
    found = Finished.read(tmp_path / "sweep").numbers
    assert found == {"iaf: elbo": (2.0, 1.0), "full: elbo": (2.0, 0.5)}


def test_the_script_writes_both_tables_and_the_curves(two, tmp_path):
    main(Config(runs=two, out=tmp_path / "compare"))
    page = (tmp_path / "compare" / "report.html").read_text("utf-8")
    assert "b \N{MINUS SIGN} a" in page and "higher than that of a by 0.500" in page and 'class="chart"' in page
    assert json.loads((tmp_path / "compare" / "result.json").read_text())["compared"] == [str(folder) for folder in two]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_it_asks_for_different_runs(two, tmp_path, count):
    with pytest.raises(ValueError, match="runs must be different folders, two or more"):
        main(Config(runs=(two[0],) * count, out=tmp_path / "compare"))
    assert not (tmp_path / "compare").exists()


@pytest.mark.parametrize(
    ("name", "text"), [("config.json", "{"), ("result.json", "[]"), ("config.json", None), ("config.json", "{}")]
)
def test_a_folder_that_is_no_finished_run_is_named(two, tmp_path, name, text):
    path = two[1] / name
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(ValueError, match=name):
        main(Config(runs=two, out=tmp_path / "compare"))


def test_a_page_is_made_anew_to_the_last_character(two):
    path = two[0] / "report.html"
    before = path.read_text("utf-8")
    path.unlink()
    assert report(ReportConfig(two[0])) == path and path.read_text("utf-8") == before


def test_the_page_of_all_runs_leads_to_each_and_replaces_none_of_yours(two, tmp_path):
    folder = tmp_path / "runs"
    path = report(ReportConfig(folder))
    page = path.read_text("utf-8")
    assert 'href="a/report.html"' in page and 'href="b/report.html"' in page and "Fine." in page and "So." not in page
    assert "-25.500 ± 0.030" in page and 'data-label="ELBO" data-value="-26.0"' in page and ">iaf<" in page
    assert report(ReportConfig(folder)) == path
    path.write_text("mine")
    with pytest.raises(ValueError, match="not written by this script"):
        report(ReportConfig(folder))
    report(ReportConfig(folder, overwrite=True))
    assert [run.name for run in finished_below(folder)] in (["a", "b"], ["b", "a"])


def test_a_folder_without_runs_and_a_damaged_record_are_refused(two, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds none"):
        report(ReportConfig(tmp_path / "empty"))
    (two[0] / "report.json").write_text('{"tables": 1}')
    with pytest.raises(ValueError, match=r"report\.json cannot be read"):
        report(ReportConfig(two[0]))
