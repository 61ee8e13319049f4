"""A finished run as its folder tells of it: settings, numbers with their errors, and curves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

Number = tuple[float, float | None]  # a value and its standard error, where one is known
FACTS = ("seed", "failed")  # what is averaged over, and what is no result


@dataclass(frozen=True)
class Finished:
    """What a folder holds.

    Attributes:
        name: of the folder.
        folder: itself.
        origin: command, date and versions.
        settings: {option: value}, those of a model as "setup.option".
        numbers: {what: (value, standard error or None)}; of a comparison for each row, the mean over seeds.
        history: a record of each epoch; empty where there are none.
        verdict: in words; empty if none was given.
    """

    name: str
    folder: Path
    origin: Mapping[str, Any]
    settings: Mapping[str, Any]
    numbers: Mapping[str, Number]
    history: Sequence[Mapping[str, Any]]
    verdict: str

    @staticmethod
    def read(folder: str | Path) -> Finished:
        """Reads config.json, result.json and metrics.jsonl.

        Raises:
            ValueError: one of the first two is missing or damaged.
        """
        folder = Path(folder)
        config, result = (_object(folder / name) for name in ("config.json", "result.json"))
        if not isinstance(config.get("config"), dict):
            raise ValueError(f"{folder / 'config.json'} was written by no run; name a folder that a script made")
        lines = folder / "metrics.jsonl"
        history = [json.loads(line) for line in lines.read_text("utf-8").splitlines()] if lines.exists() else []
        numbers = dict(_numbers(result))
        for name, rows in result.items():
            if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
                numbers |= _means(rows, "" if name == "runs" else f"{name}: ")
        settings = dict(_flat(config["config"]))
        origin = {name: value for name, value in config.items() if name != "config"}
        found = (origin, settings, numbers, history, str(result.get("verdict", "")))
        return Finished(folder.resolve().name, folder, *found)


def finished_below(folder: Path) -> list[Finished]:
    """Every run in the folders of a folder that came to its end, the newest first."""
    found = [path.parent for path in folder.rglob("config.json") if (path.parent / "result.json").exists()]
    runs = []
    for each in found:
        try:
            runs.append(Finished.read(each))
        except ValueError:  # of something else, which has a config.json too
            continue
    return sorted(runs, key=lambda run: str(run.origin.get("date", "")), reverse=True)


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is not there; name the folder of a run that came to its end") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); name the folder of a run that came to its end") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {type(found).__name__}, not the record of a run; name another folder")
    return found


def _flat(record: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in record.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{where}{name}.")
        else:
            yield f"{where}{name}", value


def _numbers(record: Mapping[str, Any]) -> Iterator[tuple[str, Number]]:
    """Every number of a record with the error that stands beside it as ``<name>_se``."""
    found = {name: _number(value) for name, value in _flat(record) if _number(value) is not None}
    for name, value in found.items():
        if value is not None and not name.endswith("_se"):
            yield name, (value, found.get(f"{name}_se"))


def _number(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return float(value) if value in ("nan", "inf", "-inf") else None
    return float(value) if isinstance(value, int | float) else None


def _means(rows: Sequence[Mapping[str, Any]], where: str) -> dict[str, Number]:
    """Rows that differ in their seed alone, as one: the mean with its standard error over seeds."""
    groups: dict[str, list[dict[str, Number]]] = {}
    for row in rows:
        words = [f"{value}" for name, value in row.items() if isinstance(value, str) and _number(value) is None]
        groups.setdefault(" / ".join(words), []).append(dict(_numbers(row)))
    found: dict[str, Number] = {}
    for facts, members in groups.items():
        for name in members[0]:
            values = [member[name][0] for member in members if name in member]
            if name in FACTS or not all(map(math.isfinite, values)):
                continue
            error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else members[0][name][1]
            found[f"{where}{facts}: {name}" if facts else f"{where}{name}"] = (fmean(values), error)
    return found
