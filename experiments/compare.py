"""Sets finished runs side by side: what differs in their settings, their numbers with differences, and their curves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from dlvm.experiments.options.command_line import start
from dlvm.experiments.options.common import FolderOptions
from dlvm.experiments.runs.finished import Finished, Number
from dlvm.experiments.runs.folder import HOW
from dlvm.experiments.runs.report import Table
from dlvm.experiments.study import Picture, Study

OF_DATA = ("data", "eval_data", "binarize", "setup.likelihood", "columns", "drop_columns", "key")
HEADLINES = ("log_px", "elbo")
NAMES = {"log_px": "log p(x)", "elbo": "ELBO", "ess": "ESS", "khat": "k-hat", "khat_bad": "k-hat > 0.7"}
INTRO = (
    "The first run is what the others are compared with. A difference comes with the error of both numbers, as if they "
    "were independent: of one training that is the Monte Carlo error of the evaluation, which knows nothing of what "
    "another seed would give; of several seeds it is the standard error of their mean."
)


@dataclasses.dataclass(frozen=True)
class Config(FolderOptions):
    """Set finished runs side by side."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of two or more runs; the others are compared with the first."""
    out: Path = Path("runs/compare")


def names_of(runs: Sequence[Finished]) -> list[str]:
    """The folders' names, or their whole paths where two have one name."""
    short = [run.name for run in runs]
    return short if len(set(short)) == len(short) else [run.folder.as_posix() for run in runs]


def settings(runs: Sequence[Finished]) -> Table:
    """The settings in which they differ, a column each; what changes no number is left out."""
    options = [o for o in dict.fromkeys(o for run in runs for o in run.settings) if o not in HOW]
    rows = [[option, *(_shown(run, option) for run in runs)] for option in options]
    return Table(["setting", *names_of(runs)], [row for row in rows if len(set(row[1:])) > 1], "What differs.")


def _shown(run: Finished, option: str) -> str:
    value = run.settings.get(option, "\N{EN DASH}")
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def numbers(runs: Sequence[Finished]) -> Table:
    """The numbers that the first has in common with another, and how far the others are from it."""
    first, *others = names_of(runs)
    base = runs[0].numbers
    rows = []
    for what, (value, error) in base.items():
        theirs = [run.numbers.get(what) for run in runs[1:]]
        same = error is None and all(one is None or one == (value, None) for one in theirs)
        if not same and any(theirs) and math.isfinite(value):
            apart = [difference(base[what], one) if one else None for one in theirs]
            name = NAMES.get(what, what.replace("_", " "))
            rows.append([name, *map(_cell, (base[what], *theirs, *apart))])
    columns = [first, *others, *(f"{name} \N{MINUS SIGN} {first}" for name in others)]
    return Table(["number", *columns], rows, "Numbers that the runs share.", dict.fromkeys(columns, ".5g"))


def difference(first: Number, other: Number) -> Number:
    """Other less first, with the error of the difference of independent numbers, if both errors are known."""
    known = first[1] is not None and other[1] is not None
    return other[0] - first[0], math.hypot(first[1] or 0.0, other[1] or 0.0) if known else None


def _cell(number: Number | None) -> object:
    """As a table has it, with two digits of the error."""
    if number is None or number[1] is None:
        return None if number is None else number[0]
    return number[0], float(f"{number[1]:.2g}")


def verdict(runs: Sequence[Finished]) -> str:
    """How the others stand to the first; or that they do not compare."""
    apart = [o for o in OF_DATA if len({_shown(run, o) for run in runs}) > 1]
    if apart:
        return f"Their numbers do not compare: the runs differ in {', '.join(apart)}, which says what is measured."
    first, *others = names_of(runs)
    headline = next((word for word in HEADLINES if all(word in run.numbers for run in runs)), None)
    if headline is None:
        return "They share no log p(x) and no bound: the table says what they share."
    return " ".join(
        _sentence(NAMES[headline], name, first, difference(runs[0].numbers[headline], run.numbers[headline]))
        for name, run in zip(others, runs[1:], strict=True)
    )


def _sentence(word: str, name: str, first: str, found: Number) -> str:
    apart, error = found
    sure = "" if error is None else f" \N{PLUS-MINUS SIGN} {error:.3f}"
    if error is not None and abs(apart) < 2 * error:
        return f"{word} of {name} is not told apart from that of {first}: {apart:+.3f}{sure} nats per datum."
    way = "higher" if apart > 0 else "lower"
    return f"{word} of {name} is {way} than that of {first} by {abs(apart):.3f}{sure} nats per datum."


def pictures(runs: Sequence[Finished]) -> Iterator[Picture]:
    """The bounds of the runs that have any, over one another."""
    from dlvm.experiments.figures import learning_curves  # which --help need not wait for

    histories: dict[str | tuple[str, str], Sequence[Sequence[Mapping[str, Any]]]] = {}
    for name, run in zip(names_of(runs), runs, strict=True):
        if any(epoch.get("valid") is not None for epoch in run.history):
            histories[name] = [run.history]
    if histories:
        yield (
            "learning_curves",
            learning_curves(histories),
            "The bound on validation data, of each run by its own objective.",
        )


def main(config: Config) -> list[Finished]:
    study = Study(config)
    if len(set(config.runs)) < max(2, len(config.runs)):
        raise ValueError(
            f"runs must be different folders, two or more, got {len(config.runs)}; name them one after the other"
        )
    runs = [Finished.read(folder) for folder in config.runs]
    run = study.open()
    said, tables = verdict(runs), [settings(runs), numbers(runs)]
    run.result(verdict=said, compared=[str(each.folder) for each in runs])
    study.show(tables)
    study.report(" against ".join(names_of(runs)), INTRO, tables, said, pictures(runs))
    return runs


if __name__ == "__main__":
    start(main, Config, "compare")
