"""Tables and the self-contained HTML page of a run; what the page says is the caller's."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

MISSING = "\N{EN DASH}"


@dataclass(frozen=True)
class Table:
    """A table for the console and for the report, from the same numbers.

    Args:
        columns: the headings, with their units.
        rows: one sequence of cells a row: text, an integer, a float, ``None`` for what is missing, or a pair
            ``(value, error)``, which becomes ``-97.10 ± 0.02``.
        caption: one sentence that says what is compared and on what.
        formats: column -> format such as ``".2f"``; needed for every column with floats.
        highlight: column -> ``max`` or ``min``; the best finite value of the column is set in bold.

    Raises:
        ValueError: if a row has not one cell a column, if a column with floats has no format, or if
            ``formats`` or ``highlight`` name an unknown column.

    Example:
        >>> Table(["guide", "log p(x)"], [["IAF", (-95.333, 0.021)]], "Test data.", {"log p(x)": ".2f"}).text
        [['IAF', '-95.33 ± 0.02']]
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str
    formats: Mapping[str, str] = field(default_factory=dict)
    highlight: Mapping[str, Callable[[Iterable[float]], float]] | None = None

    def __post_init__(self) -> None:
        for i, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"rows[{i}]: expected {len(self.columns)} cells, got {len(row)}; pad with None")
        for name in ("formats", "highlight"):
            if unknown := set(getattr(self, name) or ()) - set(self.columns):
                raise ValueError(
                    f"{name}: expected names among {list(self.columns)}, got {sorted(unknown)}; rename them"
                )
        _ = self.text

    @property
    def text(self) -> list[list[str]]:
        """Every cell as it is shown."""
        return [
            [self._format(column, cell) for column, cell in zip(self.columns, row, strict=True)] for row in self.rows
        ]

    @property
    def numeric(self) -> list[bool]:
        """Per column: are all cells numbers, pairs or missing?"""
        return [all(not isinstance(row[j], str) for row in self.rows) for j in range(len(self.columns))]

    @property
    def best(self) -> set[tuple[int, int]]:
        """Row and column of every highlighted cell."""
        found = set()
        for column, choose in (self.highlight or {}).items():
            j = list(self.columns).index(column)
            values = {i: value for i, row in enumerate(self.rows) if math.isfinite(value := _value(row[j]))}
            found |= {(i, j) for i, value in values.items() if value == choose(values.values())}
        return found

    def _format(self, column: str, cell: object) -> str:
        if cell is None:
            return MISSING
        if isinstance(cell, tuple):
            return " ± ".join(self._format(column, part) for part in cell if part is not None)
        if column in self.formats and isinstance(cell, float | int):
            return format(cell, self.formats[column])
        if isinstance(cell, float):
            raise ValueError(f"formats: expected a format for column {column!r}, which holds {cell}; add e.g. '.2f'")
        return str(cell)


def _value(cell: object) -> float:
    number = cell[0] if isinstance(cell, tuple) else cell
    return float(number) if isinstance(number, float | int) else math.nan


def with_error(row: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    """A number of a record and its standard error, which is there as ``<name>_se``; None where it is not there."""
    return (row[name], row[f"{name}_se"]) if name in row else None


def counted(number: int, word: str) -> str:
    """A number of things.

    Example:
        >>> counted(1, "epoch"), counted(2, "epoch")
        ('1 epoch', '2 epochs')
    """
    return f"{number} {word}{'s' * (number != 1)}"


def print_table(table: Table, console: Console | None = None) -> None:
    """Print a table to ``console``, standard output by default; the best values are bold."""
    shown = RichTable(
        box=box.SIMPLE_HEAD,
        title=Text(table.caption),
        title_justify="left",
        title_style="bold",
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for j, (column, numeric) in enumerate(zip(table.columns, table.numeric, strict=True)):
        widest = max(map(len, [*column.split(), *(row[j] for row in table.text)]))  # only headings may wrap
        shown.add_column(Text(column), justify="right" if numeric else "left", min_width=widest)
    for i, row in enumerate(table.text):
        shown.add_row(*(Text(cell, style="bold green" if (i, j) in table.best else "") for j, cell in enumerate(row)))
    (console or Console()).print(shown, crop=False)


def page(
    title: str,
    intro: str,
    tables: Sequence[Table],
    figures: Sequence[tuple[Path, str]],
    details: Mapping[str, object],
    verdict: str | None = None,
) -> str:
    """The report as one HTML document: no script, nothing external, light or dark like the system.

    Args:
        title: the question the run answers.
        intro: what was done; empty lines separate paragraphs.
        tables: shown below the introduction.
        figures: PNG files with their captions, embedded in the page.
        details: how to repeat the run: name -> value.
        verdict: the answer in a sentence or two, shown first.

    Returns:
        The document; all text is escaped.
    """
    parts = [f"<h1>{escape(title)}</h1>"]
    parts += [f'<p class="verdict">{escape(verdict)}</p>'] if verdict else []
    parts += [f"<p>{escape(text.strip())}</p>" for text in intro.split("\n\n") if text.strip()]
    parts += [_html(table) for table in tables]
    parts += [_embed(path, caption) for path, caption in figures]
    listed = "".join(
        f"<tr><th>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>" for name, value in details.items()
    )
    parts += (
        [f'<h2>How to repeat it</h2><div class="wide"><table class="details">{listed}</table></div>'] if details else []
    )
    return SHELL.format(title=escape(title), css=CSS, body="\n".join(parts))


def _html(table: Table) -> str:
    kinds = [' class="number"' if numeric else "" for numeric in table.numeric]
    head = "".join(f"<th{kind}>{escape(column)}</th>" for kind, column in zip(kinds, table.columns, strict=True))
    lines = []
    for i, row in enumerate(table.text):
        shown = [
            f"<strong>{escape(cell)}</strong>" if (i, j) in table.best else escape(cell) for j, cell in enumerate(row)
        ]
        lines.append(
            "<tr>" + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, shown, strict=True)) + "</tr>"
        )
    body = "\n".join(lines)
    head = f"<caption>{escape(table.caption)}</caption><thead><tr>{head}</tr></thead>"
    return f'<div class="wide"><table>{head}\n<tbody>{body}</tbody></table></div>'


def _embed(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    image = f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


SHELL = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{css}</style>
</head>
<body><main>
{body}
</main></body>
</html>
"""

CSS = """
:root { color-scheme: light dark; --ink: #1f2328; --faint: #5f6770; --line: #d8dde3; --page: #fff;
  --tint: #f1f6fb; --key: #0072b2 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --faint: #a3abb5; --line: #3a414a;
  --page: #16191d; --tint: #1e2a36; --key: #56b4e9 } }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif }
main { max-width: 932px; margin: 0 auto; padding: 2.5rem 1rem 4rem }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 1rem }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem }
p { max-width: 46rem; margin: 0 0 1rem }
.verdict { border-left: 4px solid var(--key); background: var(--tint); padding: .8rem 1.1rem;
  font-size: 1.08rem; max-width: none }
.wide { overflow-x: auto; margin: 1.75rem 0 }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; width: 100% }
caption { text-align: left; color: var(--faint); padding-bottom: .5rem }
th, td { text-align: left; padding: .38rem 1.1rem .38rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top }
thead th { border-bottom: 2px solid var(--faint); font-weight: 600; vertical-align: bottom }
.number { text-align: right } td { white-space: nowrap } strong { color: var(--key) }
.details { font-size: .85rem } .details th { font-weight: 400; color: var(--faint); white-space: nowrap }
.details td { font-family: ui-monospace, "DejaVu Sans Mono", monospace; width: 100%; white-space: normal;
  overflow-wrap: anywhere }
figure { margin: 2.25rem 0 } figcaption { color: var(--faint); font-size: .92rem; margin-top: .5rem }
img { width: 100%; height: auto; display: block; background: #fff; border: 1px solid var(--line);
  border-radius: 6px }
"""
