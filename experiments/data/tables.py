"""Numbers from a csv file, or the place where they are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def read_csv(path: Path) -> np.ndarray:
    """The (N, D) float64 matrix of a file split at commas, with or without a header line.

    The first line is a header if no cell of it is a number; empty lines are left out.

    Raises: ValueError that names line and column (from 1) of the first cell that is no number, or the first
        line of another length, or says that the file is empty or no text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no utf-8 text ({error}): save it as csv in utf-8") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error}): give yourself the right to, or name another") from error
    lines = [(number, line.split(",")) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if lines and not any(map(_is_number, lines[0][1])):
        lines = lines[1:]
    if not lines:
        raise ValueError(f"{path} holds no line of numbers: give at least one row")
    try:
        return np.array([cells for _, cells in lines], dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{path}, {_first_fault(lines)}: mend the file or leave the column out") from error


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _first_fault(lines: list[tuple[int, list[str]]]) -> str:
    width = len(lines[0][1])
    for number, cells in lines:
        if len(cells) != width:
            return f"line {number}: expected {width} columns as in line {lines[0][0]}, got {len(cells)}"
        for column, cell in enumerate(cells, 1):
            if not _is_number(cell):
                return f"line {number}, column {column}: expected a number, got {cell.strip()!r}"
    return f"lines {lines[0][0]} to {lines[-1][0]}: expected plain numbers"
