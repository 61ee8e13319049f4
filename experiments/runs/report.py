"""Tables, for the console and for the page of a run, from the same numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

MISSING = "\N{EN DASH}"


@dataclass(frozen=True)
class Link:
    """A cell that leads somewhere: what it says, and where that is, seen from the page."""

    text: str
    href: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Table:
    """A table for the console and for the report, from the same numbers.

    Args:
        columns: the headings, with their units.
        rows: one sequence of cells a row: text, a ``Link``, an integer, a float, ``None`` for what is missing, or a
            pair ``(value, error)``, which becomes ``-97.10 ± 0.02``.
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
        return [not any(isinstance(row[j], str | Link) for row in self.rows) for j in range(len(self.columns))]

    @property
    def best(self) -> set[tuple[int, int]]:
        """Row and column of every highlighted cell."""
        found = set()
        for column, choose in (self.highlight or {}).items():
            j = list(self.columns).index(column)
            values = {i: value for i, row in enumerate(self.rows) if math.isfinite(value := value_of(row[j]))}
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


def value_of(cell: object) -> float:
    """The number that a cell holds, or of a pair its first; NaN where it holds none."""
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
