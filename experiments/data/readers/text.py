"""Tables in text: csv, tsv and the like, whatever separates their cells."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dlvm.experiments.data.readers.found import Roles
from dlvm.experiments.data.readers.tables import Table, is_number, unique_names, with_own_index
from dlvm.inference.console import say

SEPARATORS = (",", ";", "\t", "|", " ")  # a blank stands for any run of them
SAMPLE = 100  # lines that are looked at for the separator
DECIMAL = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+")
Lines = list[tuple[int, list[str]]]  # number in the file, from 1, and cells


def read_text(path: Path, roles: Roles) -> Table:
    """The columns of a file of text with a separator found by itself, with or without a line of names.

    The first line holds names if no cell of it is a number, if an option names a column in it, or if it counts 0, 1,
    2, ...; empty lines are left out. A decimal comma is read as one where cells are not separated by commas.

    Raises: ValueError that names line and column (from 1), or says that the file is empty or no text.
    """
    text = _text(path)
    separator = find_separator([line for line in text.splitlines() if line.strip()][:SAMPLE])
    lines = _cells(path, text, separator)
    header = bool(lines) and _is_header(lines[0][1], roles)
    names, lines = (lines[0][1], lines[1:]) if header else ([], lines)
    if not lines:
        raise ValueError(f"{path} (--data) holds no line of numbers: give at least one row")
    width = len(names) or len(lines[0][1])
    first = "the names" if names else f"line {lines[0][0]}"
    for number, cells in lines:
        if len(cells) != width:
            said = "in line 1" if names else f"in {first}"
            raise ValueError(
                f"{path}, line {number}: expected {width} columns as {said}, got {len(cells)}: mend the file (its "
                f"cells seem to be separated by {separator!r})"
            )
    every = unique_names(str(path), names or [""] * width)
    columns = _decimal_points(path, list(zip(*(cells for _, cells in lines), strict=True)), separator)
    kept = [k for k, column in enumerate(columns) if any(column) or not every[k].startswith("column ")]
    if len(kept) < width:
        say(f"{path.name}: columns without names and cells are left out")
    numbers, joined = [number for number, _ in lines], "_" in text
    table = Table(
        str(path), tuple(every[k] for k in kept), tuple(_array(columns[k], joined) for k in kept), header, numbers
    )
    if separator != ",":
        word = {"\t": "tabs", " ": "blanks"}.get(separator, repr(separator))
        say(f"{path.name}: cells are separated by {word}")
    return with_own_index(table, roles)


def find_separator(lines: Sequence[str]) -> str:
    """What separates the cells: what cuts the lines evenly, into numbers where there are any, into most cells.

    Example:
        >>> find_separator(["a;b", "1,5;2,5"]), find_separator(["1 2", "3 4"]), find_separator(["1"])
        (';', ' ', ',')
    """
    best, found = (0.0, 0.0, 1), ","
    for separator in SEPARATORS:
        rows = [row for row in _split(lines, separator) if row]
        if not rows:
            continue
        width, times = Counter(map(len, rows)).most_common(1)[0]
        cells = [cell.strip() for row in rows for cell in row]
        numeric = sum(is_number(cell) or separator != "," and bool(DECIMAL.fullmatch(cell)) for cell in cells)
        score = (round(times / len(rows), 1), round(numeric / len(cells), 1), width)
        if width > 1 and score > best:
            best, found = score, separator
    return found


def _split(lines: Sequence[str], separator: str) -> list[list[str]]:
    if separator == " ":
        return [line.split() for line in lines]
    try:
        return list(csv.reader(lines, delimiter=separator))
    except csv.Error:  # a cell beyond measure
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no utf-8 text ({error}): save it as csv in utf-8") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error}): give yourself the right to, or name another") from error


def _cells(path: Path, text: str, separator: str) -> Lines:
    """Cells of each line that holds any; a quoted cell may hold separators, but no end of a line."""
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if separator == " ":
        return [(number, line.split()) for number, line in lines]
    if '"' not in text:
        cut = [(number, [cell.strip() for cell in line.split(separator)]) for number, line in lines]
    else:
        cut = []
        for number, line in lines:
            try:
                (row,) = csv.reader([line], delimiter=separator, skipinitialspace=True, strict=True)
            except csv.Error as error:
                raise ValueError(
                    f"{path}, line {number}: a quoted cell does not end in it ({error}): mend it"
                ) from error
            cut.append((number, [cell.strip() for cell in row]))
    return [(number, cells) for number, cells in cut if any(cells)]


def _is_header(cells: list[str], roles: Roles) -> bool:
    named = {roles.label_column, roles.index_column, roles.split_column, *(roles.columns or ()), *roles.drop_columns}
    named |= {roles.sequence_column, roles.time_column, roles.text_column}
    if not any(map(is_number, cells)) or named & set(cells) - {None}:
        return True
    counted = cells[1:] if cells[0] == "" else cells
    return len(counted) > 2 and counted == [str(k) for k in range(len(counted))]


def _decimal_points(path: Path, columns: list[tuple[str, ...]], separator: str) -> list[tuple[str, ...]]:
    if separator == "," or not any("," in cell for column in columns for cell in column):
        return columns
    found = [k for k, column in enumerate(columns) if any(DECIMAL.fullmatch(cell) for cell in column)]
    commas = [cell for k in found for cell in columns[k] if "," in cell]
    if commas and all(THOUSANDS.fullmatch(cell) for cell in commas):
        raise ValueError(
            f"{path}: {commas[0]!r} may be a decimal number or one of thousands: write numbers without commas in them"
        )
    points = [cell for column in columns for cell in column if re.fullmatch(r"[+-]?\d+\.\d+", cell)]
    if commas and points:
        raise ValueError(f"{path}: numbers are written as {commas[0]!r} and as {points[0]!r}: write all in one way")
    if commas:
        say(f"{path.name}: a comma in a number is read as the decimal point")
    for k in found:  # a cell such as 1.234,5 stays as it is, and is told as no number
        columns[k] = tuple(cell.replace(",", ".") if DECIMAL.fullmatch(cell) else cell for cell in columns[k])
    return columns


def _array(cells: tuple[str, ...], joined: bool) -> np.ndarray:
    """Numbers if all cells are; where there may be 1_000, which python reads as one, a table does not mean it."""
    try:
        numbers = np.array(cells, dtype=np.float64)
    except ValueError:
        return np.array(cells, dtype=object)
    return np.array(cells, dtype=object) if joined and any("_" in cell for cell in cells) else numbers
