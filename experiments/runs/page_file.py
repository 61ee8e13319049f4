"""A page as report.json holds it: all that it is made of, so that it can be made anew."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dlvm.experiments.figures.chart import Chart
from dlvm.experiments.runs.inline import Inline
from dlvm.experiments.runs.page import Page
from dlvm.experiments.runs.report import Link, Table

NAME = "report.json"
CHOICES: dict[str, Callable] = {"max": max, "min": min}


def written(page: Page) -> str:
    """The page as JSON."""
    tables = [
        {
            "columns": list(table.columns),
            "rows": [[_cell(cell) for cell in row] for row in table.rows],
            "caption": table.caption,
            "formats": dict(table.formats),
            "highlight": {column: choose.__name__ for column, choose in (table.highlight or {}).items()},
        }
        for table in page.tables
    ]
    figures = [asdict(figure) | {"charts": [_chart(chart) for chart in figure.charts]} for figure in page.figures]
    details = {name: str(value) for name, value in page.details.items()}
    told = {"title": page.title, "intro": page.intro, "verdict": page.verdict, "details": details}
    told |= {"following": page.following}
    return json.dumps(told | {"tables": tables, "figures": figures}, ensure_ascii=False, allow_nan=False)


def read(path: Path) -> Page:
    """The page that a run wrote down.

    Raises:
        ValueError: the file is missing, damaged, or none of ours.
    """
    try:
        told = json.loads(path.read_text("utf-8"))
        tables = [_table(table) for table in told.pop("tables")]
        figures = [
            Inline(**figure | {"charts": tuple(map(_read_chart, figure["charts"]))}) for figure in told.pop("figures")
        ]
        return Page(tables=tables, figures=figures, **told)
    except FileNotFoundError:
        raise ValueError(f"{path} is not there; name the folder of a run that wrote a report") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({type(error).__name__}: {error}); run its script again") from error


def _cell(cell: object) -> object:
    if isinstance(cell, tuple):
        return {"pair": [_cell(part) for part in cell]}
    if isinstance(cell, float) and not math.isfinite(cell):
        return {"number": str(cell)}
    if isinstance(cell, Link):
        return {"link": [cell.text, cell.href]}
    return cell if cell is None or isinstance(cell, str | bool | int | float) else str(cell)


def _read_cell(cell: Any) -> object:
    if isinstance(cell, dict):
        if "link" in cell:
            return Link(*cell["link"])
        return tuple(map(_read_cell, cell["pair"])) if "pair" in cell else float(cell["number"])
    return cell


def _table(told: Mapping[str, Any]) -> Table:
    rows = [[_read_cell(cell) for cell in row] for row in told["rows"]]
    highlight = {column: CHOICES[word] for column, word in told["highlight"].items()}
    return Table(told["columns"], rows, told["caption"], told["formats"], highlight)


def _chart(chart: Chart) -> dict[str, Any]:
    lines = {
        label: [[place, value] for place, value in line.items() if math.isfinite(value)]
        for label, line in chart.lines.items()
    }
    return {**vars(chart), "lines": lines, "looks": {label: list(look) for label, look in chart.looks.items()}}


def _read_chart(told: Mapping[str, Any]) -> Chart:
    lines = {label: {float(place): float(value) for place, value in line} for label, line in told["lines"].items()}
    return Chart(**{**told, "lines": lines, "looks": {label: tuple(look) for label, look in told["looks"].items()}})
