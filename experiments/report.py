"""Makes the page of a finished run anew, or the page of all runs below a folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from dlvm.experiments.options.command_line import start
from dlvm.experiments.runs.finished import Finished, finished_below
from dlvm.experiments.runs.report import MISSING, Link, Table, counted, print_table

if TYPE_CHECKING:
    from dlvm.experiments.runs.page import Page

INDEX = "index.html"
BOUNDS = ("log p(x)", "ELBO")
MARK = "<!-- made by dlvm.experiments.report -->"


@dataclasses.dataclass(frozen=True)
class Config:
    """Make the page of a run anew from what it wrote down, or one page that lists all runs below a folder."""

    folder: tyro.conf.Positional[Path] = Path("runs")
    """Of a run, whose report.html is made anew; or of many, for which index.html is."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace an index.html that this script did not write."""


def index(folder: Path, runs: list[Finished]) -> Page:
    """All runs of a folder, the newest first, each with its headline."""
    from dlvm.experiments.runs.page import SENTENCE, Page  # which --help need not wait for

    rows = []
    for run in runs:
        date = str(run.origin.get("date", ""))[:16].replace("T", " ")
        words = [str(run.settings.get(name) or MISSING) for name in ("model", "guide", "objective", "data")]
        found = [run.numbers.get(name) for name in ("log_px", "elbo")]
        rows.append([_link(folder, run), *words, *found, date, SENTENCE.split(run.verdict)[0]])
    caption = f"{counted(len(runs), 'run')} that came to an end, the newest first."
    columns = ["run", "model", "guide", "objective", "data", *BOUNDS, "date", "verdict"]
    table = Table(columns, rows, caption, dict.fromkeys(BOUNDS, ".3f"))
    return Page(f"Runs in {folder.resolve().name}", "", [table], [], {})


def _link(folder: Path, run: Finished) -> object:
    where = run.folder.relative_to(folder).as_posix()
    return Link(where, f"{where}/report.html") if (run.folder / "report.html").exists() else where


def main(config: Config) -> Path:
    from dlvm.experiments.runs.page_file import NAME, read

    folder = config.folder
    if (folder / NAME).exists():
        path = folder / "report.html"
        path.write_text(read(folder / NAME).html(), "utf-8")
    else:
        runs = finished_below(folder) if folder.is_dir() else []
        if not runs:
            raise ValueError(f"folder {folder} is no run with a report, and holds none; name one that a script made")
        page, path = index(folder, runs), folder / INDEX
        if path.exists() and MARK not in path.read_text("utf-8") and not config.overwrite:
            raise ValueError(f"{path} was not written by this script; move it, or add --overwrite")
        print_table(page.tables[0])
        path.write_text(f"{page.html()}{MARK}\n", "utf-8")
    print(f"page: {path}")
    return path


if __name__ == "__main__":
    start(main, Config, "report")
