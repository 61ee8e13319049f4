"""Tables of sequences: a line for each step, with a column that says of which sequence, and perhaps one of times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dlvm.experiments.data.readers.found import MOST_ENTRIES, Found, Roles
from dlvm.experiments.data.readers.tables import Table, assign_rows
from dlvm.experiments.data.readers.writing import written
from dlvm.inference.console import say

CLOSE = 1e-3  # of a time step


def assign(table: Table, roles: Roles) -> Found:
    """The roles that the options give to the columns: a row for each datum, or for each step of one, or text.

    Raises:
        ValueError: as ``assign_rows``; for steps, times that are none, that two steps of a sequence share, or that lie
            between time steps; for text, as ``written``.
    """
    if roles.text_column is not None:
        return _texts(table, roles)
    if roles.sequence_column is None:
        for name, value in (("time_column", roles.time_column), ("time_step", roles.time_step)):
            if value is not None:
                option = name.replace("_", "-")
                raise ValueError(f"{name} (--{option}) needs sequence_column (--sequence-column), got {value!r} alone")
        return assign_rows(table, roles)
    return _sequences(table, roles)


def _texts(table: Table, roles: Roles) -> Found:
    """The cells of a column as sequences of characters, with labels and ids from others."""
    k = table.find("text_column", str(roles.text_column))
    if roles.sequence_column is not None or roles.columns is not None:
        raise ValueError(f"text_column {roles.text_column!r} makes x by itself: leave columns and sequence_column out")
    rows = np.zeros(len(table.columns[0]))
    others = Table(table.origin, (*table.names, "<rows>"), (*table.columns, rows), True, table.lines, table.index)
    beside = assign_rows(others, replace(roles, text_column=None, columns=("<rows>",), drop_columns=()))
    texts = [str(cell) for cell in table.columns[k]] if table.columns[k].dtype.kind == "O" else table.words(k)
    found = written(texts, roles.vocabulary, table.origin, [table.where(row) for row in range(len(texts))])
    return replace(beside, x=found.x, more=found.more, vocabulary=found.vocabulary, columns=None)


def _sequences(table: Table, roles: Roles) -> Found:
    """Steps that bear one id are a sequence, in the order of their times, or else of the file."""
    if roles.index_column is not None:
        raise ValueError(
            f"index_column must name each row, which sequence_column {roles.sequence_column!r} does for sequences: "
            "leave one of them out"
        )
    ids = table.words(table.find("sequence_column", str(roles.sequence_column)))
    if "" in ids:
        raise ValueError(f"{table.origin}, {table.where(ids.index(''))}: sequence_column is empty: fill it in")
    times = None if roles.time_column is None else _times(table, table.find("time_column", roles.time_column))
    taken = (name for name in (roles.sequence_column, roles.time_column) if name not in (roles.columns or ()))
    plain = replace(roles, sequence_column=None, time_column=None, time_step=None)
    steps = assign_rows(table, replace(plain, drop_columns=(*roles.drop_columns, *filter(None, taken))))
    names, numbers = np.unique(np.array(ids, object).astype(str), return_inverse=True)
    first = np.full(len(names), len(ids))
    np.minimum.at(first, numbers, np.arange(len(ids)))
    groups = [np.flatnonzero(numbers == k) for k in np.argsort(first)]  # in the order in which they begin
    if times is not None:
        groups = [_in_time(table, rows, times) for rows in groups]
        _say_gaps(table, groups, times, roles.time_step)
    return _gathered(table, roles, steps, groups, [ids[rows.min()] for rows in groups], times)


def _gathered(
    table: Table,
    roles: Roles,
    steps: Found,
    groups: Sequence[np.ndarray],
    names: Sequence[str],
    times: np.ndarray | None,
) -> Found:
    """Steps as sequences, one a row, filled up with zeros; and what all steps of a sequence share."""
    since = [np.arange(len(rows)) if times is None else times[rows] - times[rows[0]] for rows in groups]
    if roles.time_step is None:
        places = [np.arange(len(rows)) for rows in groups]
    else:
        places = [
            _on_grid(table, rows, each, roles.time_step, roles.missing)
            for rows, each in zip(groups, since, strict=True)
        ]
        since = [np.arange(place[-1] + 1) * roles.time_step for place in places]
    lengths = np.array([place[-1] + 1 for place in places])
    longest, width = int(lengths.max()), steps.x.shape[1]
    if len(groups) * longest * width > MOST_ENTRIES:
        raise ValueError(
            f"{table.origin} would make {len(groups)} sequences of {longest} steps, more than {MOST_ENTRIES} numbers "
            "in all: cut long sequences, or take a longer time_step"
        )
    x, clock = np.zeros((len(groups), longest, width)), np.zeros((len(groups), longest))
    for k, (rows, place) in enumerate(zip(groups, places, strict=True)):
        x[k, : lengths[k]] = np.nan  # where no line says anything
        x[k, place] = steps.x[rows]
        clock[k, : lengths[k]] = since[k]
    shared: dict[str, Any] = {
        name: None if values is None else _shared(table, name, np.asarray(values), groups)
        for name, values in (("labels", steps.labels), ("part", steps.part))
    }
    more = {"lengths": lengths} | ({} if times is None else {"times": clock})
    return replace(steps, x=x, index=names, more=more, **shared)


def _times(table: Table, k: int) -> np.ndarray:
    """A column of times: numbers, or dates in ISO's way, which become seconds."""
    column = table.columns[k]
    if column.dtype.kind == "O":
        cells = [str(cell).strip() for cell in column]
        for row, cell in enumerate(cells):
            try:
                np.datetime64(cell, "ms")
                bad = cell in ("", "NaT")
            except ValueError:
                bad = True
            if bad:
                raise ValueError(
                    f"{table.origin}, {table.where(row)}: time_column {table.names[k]!r} must hold numbers, or dates "
                    f"as 2024-01-31T12:00, got {cell!r}: mend it"
                )
        column = np.array(cells, "datetime64[ms]").astype(np.float64) / 1000
    if not np.isfinite(column).all():
        row = int(np.flatnonzero(~np.isfinite(column))[0])
        raise ValueError(
            f"{table.origin}, {table.where(row)}: time_column {table.names[k]!r} must hold a time for each step, got "
            f"{column[row]}: fill it in"
        )
    return column.astype(np.float64)


def _in_time(table: Table, rows: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The steps of a sequence in the order of their times, no two of which are the same."""
    ordered = rows[np.argsort(times[rows], kind="stable")]
    same = np.flatnonzero(np.diff(times[ordered]) == 0)
    if len(same):
        one, other = ordered[same[0]], ordered[same[0] + 1]
        raise ValueError(
            f"{table.origin}: {table.where(one)} and {table.where(other)} are of one sequence and have one time, "
            f"{times[one]:g}: take one of them out, or tell the sequences apart"
        )
    if not np.array_equal(ordered, rows):
        back = rows[int(np.flatnonzero(np.diff(times[rows]) < 0)[0]) + 1]
        say(f"{Path(table.origin).name}: times go back in {table.where(back)}, so that steps are sorted by time")
    return ordered


def _say_gaps(table: Table, groups: Sequence[np.ndarray], times: np.ndarray, time_step: float | None) -> None:
    """Says that steps lie at different distances, where a model that counts steps would not see it."""
    gaps = np.concatenate([np.diff(times[rows]) for rows in groups])
    if time_step is None and len(gaps) and gaps.max() > gaps.min() * (1 + CLOSE):
        say(
            f"{Path(table.origin).name}: {gaps.min():g} to {gaps.max():g} lie between the times of steps, which count "
            "as neighbours all the same but for a model that takes times (--time-step fills in steps that lack)"
        )


def _on_grid(
    table: Table, rows: np.ndarray, since: np.ndarray, time_step: float, missing: Sequence[str] | None
) -> np.ndarray:
    """How many time steps behind the first each step of a sequence lies."""
    if since[-1] / time_step > MOST_ENTRIES:
        raise ValueError(
            f"{table.origin}: a sequence goes on for {since[-1]:g} behind {table.where(rows[0])}, which is more than "
            f"{MOST_ENTRIES} steps of time_step {time_step:g}: give a longer one"
        )
    places = np.round(since / time_step).astype(np.int64)
    off = np.flatnonzero(np.abs(since / time_step - places) > CLOSE)
    twice = np.flatnonzero(np.diff(places) == 0)
    if len(off) or len(twice):
        bad = off[0] if len(off) else twice[0] + 1
        raise ValueError(
            f"{table.origin}, {table.where(rows[bad])}: the time lies {since[bad]:g} behind the first of its sequence, "
            f"which is no multiple of time_step {time_step:g}: give another --time-step, or leave it out"
        )
    if missing is None and places[-1] + 1 > len(places):
        raise ValueError(
            f"{table.origin}: {int(places[-1]) + 1 - len(places)} steps of time_step {time_step:g} lack between "
            f"{table.where(rows[0])} and {table.where(rows[-1])}, which are missing entries: allow for them by "
            "--missing NA"
        )
    return places


def _shared(table: Table, name: str, values: np.ndarray, groups: Sequence[np.ndarray]) -> np.ndarray:
    """What all steps of a sequence say alike, one for each sequence."""
    for rows in groups:
        other = np.flatnonzero(values[rows] != values[rows[0]])
        if len(other):
            what = {"labels": "label", "part": "part of the data"}[name]
            raise ValueError(
                f"{table.origin}: steps of one sequence must have one {what}, got {values[rows[0]]!r} in "
                f"{table.where(rows[0])} and {values[rows[other[0]]]!r} in {table.where(rows[other[0]])}: mend it"
            )
    return np.array([values[rows[0]] for rows in groups])
