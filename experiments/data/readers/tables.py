"""Tables whose columns have names: which of them are data, labels, ids, or words for the split."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dlvm.experiments.data.readers.found import Found, Roles, part_words
from dlvm.inference.console import say

EMPTY = ("", "nan", "NaN", "<NA>", "None")  # with --missing, whatever its words


@dataclass(frozen=True)
class Table:
    """Columns of numbers (float64) and of text (object arrays of str), as a file or a frame has them.

    Attributes: `origin` is what messages call it; `headed` whether the names are the file's own; `lines` the line of
    each row in the file, from 1, or None; `index` the names of the rows that the table has besides its columns.
    """

    origin: str
    names: tuple[str, ...]
    columns: tuple[np.ndarray, ...]
    headed: bool = True
    lines: Sequence[int] | None = None
    index: Sequence[str] | None = None

    def find(self, option: str, name: str) -> int:
        """The place of a column that an option names; ValueError with the nearest names otherwise."""
        if name in self.names:
            return self.names.index(name)
        near = difflib.get_close_matches(str(name), self.names, 3, 0.5) or list(self.names[:8])
        flag = "--" + option.replace("_", "-")
        more = ", ..." if len(self.names) > len(near) else ""
        raise ValueError(f"{option} ({flag}) must name a column of {self.origin}, got {name!r}: it has {near}{more}")

    def words(self, k: int) -> list[str]:
        """The cells of a column as text; whole numbers without a point."""
        column = self.columns[k]
        if column.dtype.kind == "O":
            return [str(cell).strip() for cell in column]
        return [
            str(int(cell)) if cell == np.floor(cell) and np.isfinite(cell) else repr(float(cell)) for cell in column
        ]

    def where(self, row: int) -> str:
        """How a message names a row."""
        return f"row {row} (from 0)" if self.lines is None else f"line {self.lines[row]}"


def assign_rows(table: Table, roles: Roles) -> Found:
    """The roles that the options give to the columns; all others are data.

    Raises: ValueError for a column that is not there or has two roles, one of text that has none, a cell that is no
        number, or ids that are not all different.
    """
    places, beside = _beside(table, roles)
    x = _data(table, roles, set(places.values()))
    _refuse_text(table, x, roles)
    named = table.headed or len(x) < len(table.names)  # "column 2" is a name where some are left out
    columns = tuple(table.names[k] for k in x) if named else None
    return replace(beside, x=_numbers(table, x, roles.missing), columns=columns)


def annotated(x: np.ndarray, columns: Sequence[str], rows: Table, roles: Roles) -> Found:
    """A matrix with names of its columns, and a table about its rows, with their names, for all other roles."""
    if x.ndim != 2 or x.shape != (len(rows.index or ()), len(columns)):
        shape = (len(rows.index or ()), len(columns))
        raise ValueError(f"{rows.origin}: x must have the shape {shape} of its names, got {x.shape}: write it anew")
    _, beside = _beside(rows, roles)
    genes = Table(rows.origin, unique_names(rows.origin, columns), ())
    chosen = _data(genes, roles, set())
    return replace(beside, x=x[:, chosen], columns=[genes.names[k] for k in chosen])


def _beside(table: Table, roles: Roles) -> tuple[dict[str, int], Found]:
    """Places of the columns that are not data, and what they say."""
    named = {option: getattr(roles, option) for option in ("label_column", "index_column", "split_column")}
    places = {option: table.find(option, name) for option, name in named.items() if name is not None}
    if len(set(places.values())) != len(places):
        raise ValueError(f"each role needs a column of its own, got {named}: name different ones")
    index = _ids(table, places["index_column"]) if "index_column" in places else table.index
    labels = _labels(table, places["label_column"], roles) if "label_column" in places else None
    k = places.get("split_column")
    part = None if k is None else part_words(table.origin, table.names[k], table.words(k))
    return places, Found(None, labels, index=index, part=part, origin=table.origin)


def _labels(table: Table, k: int, roles: Roles) -> np.ndarray:
    words = table.words(k)
    empty = [row for row, word in enumerate(words) if word in EMPTY or word in (roles.missing or ())]
    if empty:
        raise ValueError(
            f"{table.origin}, {table.where(empty[0])}: label_column {table.names[k]!r} must say a class in each row, "
            f"got {words[empty[0]]!r}: fill it in, or take the row out"
        )
    return table.columns[k]


def _data(table: Table, roles: Roles, taken: set[int]) -> list[int]:
    dropped = {table.find("drop_columns", name) for name in roles.drop_columns}
    if roles.columns is None:
        chosen = [k for k in range(len(table.names)) if k not in taken | dropped]
    else:
        chosen = [table.find("columns", name) for name in roles.columns]
        twice = sorted({table.names[k] for k in chosen if k in taken or k in dropped or chosen.count(k) > 1})
        if twice:
            raise ValueError(f"columns (--columns) of {table.origin} must have one role each, got {twice} twice")
    if not chosen:
        raise ValueError(
            f"columns (--columns) of {table.origin} must leave some for x, got none besides labels and ids"
        )
    return chosen


def _refuse_text(table: Table, chosen: list[int], roles: Roles) -> None:
    text = [k for k in chosen if _is_text(table.columns[k], roles.missing)]
    if not text:
        return
    k = text[0]
    words = dict.fromkeys(table.words(k))
    cells = ", ".join(repr(cell)[:30] for cell in list(words)[:3]) + ", ..." * (len(words) > 3)
    others = f" (so do {', '.join(table.names[j] for j in text[1:4])}{', ...' * (len(text) > 4)})" if text[1:] else ""
    all_text = " ".join(_quoted(table.names[j]) for j in text[:8])
    name = _quoted(table.names[k])
    raise ValueError(
        f"{table.origin}: column {table.names[k]!r} holds text ({cells}){others}: say --label-column {name} if it "
        f"names classes, --index-column {name} if it names the rows, or --drop-columns {all_text} (--columns takes "
        "those that it names)"
    )


def _is_text(column: np.ndarray, missing: Sequence[str] | None) -> bool:
    """Whether most of its cells are text: a few that are no numbers are faults, which are located."""
    if column.dtype.kind != "O":
        return False
    cells = [str(cell).strip() for cell in column]
    left = [cell for cell in cells if cell not in EMPTY and cell not in (missing or ())]
    return sum(not is_number(cell) for cell in left) * 2 > len(left)


def _ids(table: Table, k: int) -> list[str]:
    ids = table.words(k)
    seen: dict[str, int] = {}
    for row, word in enumerate(ids):
        if word in seen:
            raise ValueError(
                f"index_column {table.names[k]!r} of {table.origin} must name each row, got {word!r} in "
                f"{table.where(seen[word])} and {table.where(row)}: make them unlike, or leave --index-column out"
            )
        seen[word] = row
    return ids


def _numbers(table: Table, chosen: list[int], missing: Sequence[str] | None) -> np.ndarray:
    x = np.empty((len(table.columns[0]), len(chosen)))
    for j, k in enumerate(chosen):
        column = table.columns[k]
        if column.dtype.kind == "O":
            cells = np.array([str(cell).strip() for cell in column], object)
            if missing is not None:
                cells[np.isin(cells.astype(str), [*EMPTY, *missing])] = "nan"
            wrong = next((row for row, cell in enumerate(cells) if not is_number(cell)), None)
            if wrong is not None:
                raise ValueError(_fault(table, wrong, k, cells[wrong]))
            column = cells.astype(np.float64)
        x[:, j] = column
    return x


def _fault(table: Table, row: int, k: int, cell: str) -> str:
    name = f" in {table.names[k]}" if table.headed else ""
    remedy = f"--missing {_quoted(cell)} if it is a missing entry, " if len(cell) < 12 else ""
    return (
        f"{table.origin}, {table.where(row)}, column {k + 1}: expected a number, got {cell!r}{name}: mend the file, "
        f"say {remedy}or leave the column out by --drop-columns"
    )


def is_number(cell: str) -> bool:
    """Whether python reads a number in it."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _quoted(word: str) -> str:
    return word if word.isidentifier() else f"'{word}'"


def unique_names(origin: str, names: Sequence[str]) -> tuple[str, ...]:
    """Names of columns, if they are all different; one that is empty becomes "column 3".

    Example:
        >>> unique_names("x.csv", ["a", ""])
        ('a', 'column 2')
    """
    full = [name.strip() or f"column {k}" for k, name in enumerate(names, 1)]
    if len(set(full)) != len(full):
        twice = next(name for name in full if full.count(name) > 1)
        raise ValueError(f"{origin} must name its columns differently, got {twice!r} twice: rename one in the file")
    return tuple(full)


def with_own_index(table: Table, roles: Roles) -> Table:
    """The same with a first column that has no name, and counts or names the rows, as their index (pandas)."""
    named = {roles.label_column, roles.index_column, roles.split_column, *(roles.columns or ()), *roles.drop_columns}
    named |= {roles.sequence_column, roles.time_column, roles.text_column}
    if not table.headed or table.names[0] != "column 1" or len(table.names) < 2 or "column 1" in named:
        return table
    first = table.columns[0]
    counts = first.dtype.kind != "O" and np.array_equal(first, np.arange(len(first)))
    if not counts and (first.dtype.kind != "O" or len(set(table.words(0))) < len(first) or not _is_text(first, None)):
        return table
    how = "counts" if counts else "names"
    say(f"{Path(table.origin).name}: column 1 has no name and {how} the rows, so it is taken for their index")
    return replace(table, names=table.names[1:], columns=table.columns[1:], index=table.words(0))
