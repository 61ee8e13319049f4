"""The table of ratios, printed and written as Markdown and JSON, with what it was measured on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks.config import Config
from benchmarks.results import Results, Row
from benchmarks.timing import Spread, spread
from dlvm.experiments.runs.report import Table

PACKAGES = ("torch", "pyro-ppl", "numpy", "numpyro", "jax", "pythae")


def environment(config: Config) -> dict[str, object]:
    """Versions, processor and threads."""
    return {
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "threads": config.threads,
    }


def table(results: Results) -> Table:
    """Every row, those with a target first."""
    rows = sorted(results.rows, key=lambda row: row.target is None)
    return Table(
        ["case", "quantity", "median [min-max]", "target", "reached"],
        [[row.case, row.quantity, shown(row), str(row.target or ""), row.verdict] for row in rows],
        "Ratios of time per call unless a unit is given; measured side by side in one run.",
    )


def shown(row: Row) -> str:
    """The value as the table has it.

    Example:
        >>> shown(Row("1 site", "compiled / hand-written", Spread(0.8211, 0.8, 0.85)))
        '0.82 [0.80-0.85]'
    """
    digits = ".2f" if not row.unit else ".1f" if abs(row.value.median) >= 10 else ".3g"
    median, low, high = (format(number, digits) for number in row.value)
    text = median if row.value.low == row.value.high else f"{median} [{low}-{high}]"
    return f"{text} {row.unit}".strip()


def markdown(results: Results, config: Config) -> str:
    """The table, the times behind it, the remarks and the environment."""
    found = table(results)
    times = [
        [case, variant, _milliseconds(spread(values))]
        for case, variants in results.seconds.items()
        for variant, values in variants.items()
    ]
    parts = ["# Benchmarks", found.caption, _markdown(found.columns, found.text)]
    if times:
        parts += ["## Times", _markdown(["case", "variant", "ms per call, median [min-max]"], times)]
    if results.notes:
        parts += ["## Remarks", "\n".join(f"* {note}" for note in results.notes)]
    parts += ["## Measured on", "\n".join(f"* {name}: {value}" for name, value in environment(config).items())]
    return "\n\n".join(parts) + "\n"


def write(results: Results, config: Config) -> None:
    """benchmarks.md and benchmarks.json in the folder of the run."""
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "benchmarks.md").write_text(markdown(results, config), encoding="utf-8")
    record = {
        "environment": environment(config),
        "config": asdict(config) | {"out": str(config.out)},
        "rows": [
            {
                "case": row.case,
                "quantity": row.quantity,
                **row.value._asdict(),
                "unit": row.unit or "ratio",
                "target": None if row.target is None else str(row.target),
                "reached": {"yes": True, "no": False}.get(row.verdict),
            }
            for row in results.rows
        ],
        "seconds": results.seconds,
        "notes": results.notes,
    }
    (config.out / "benchmarks.json").write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _milliseconds(value: Spread) -> str:
    return "{:.3f} [{:.3f}-{:.3f}]".format(*(1e3 * seconds for seconds in value))


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _version(package: str) -> str:
    try:
        return torch.__version__ if package == "torch" else version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    cpus = Path("/proc/cpuinfo")
    for line in cpus.read_text().splitlines() if cpus.exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
