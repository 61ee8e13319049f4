"""The folder that a run leaves behind: config.json, metrics.jsonl, result.json, figures and report.html."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyro
import torch

from dlvm.experiments.runs.report import Table
from dlvm.inference.checkpoints.lock import LOCK, claim

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlvm.experiments.runs.inline import Inline

RECORDS = ("metrics.jsonl", "result.json", "report.json", "report.html")
CHECKPOINTS = "checkpoints"
CELLS = "cells"
PAIRS = "pairs"
# What changes no number.
HOW = frozenset("jobs backend cluster out overwrite data_dir checkpoint_every tensorboard callback dry_run".split())


class Run:
    """One run of a script, written to its folder as it goes, so that a run that stops keeps what it had.

    ``config.json`` is written at once, with versions, command line and date. Non-finite numbers become
    the strings ``"nan"``, ``"inf"`` and ``"-inf"``: the files stay valid JSON, and ``float`` reads them back.

    Args:
        folder: where to write; created if it does not exist.
        config: the settings of the run; numbers, text, tensors, paths, dataclasses, and mappings or sequences
            of them.
        overwrite: remove the records, cells, checkpoints and PNG files of an earlier run in ``folder``; anything else
            stays. A run that stopped before its first record needs no such word.
        goes_on: a run of the same settings that did not come to its end, or in which something failed, gives its
            cells to this one; its records are written anew.

    Raises:
        ValueError: if ``folder`` cannot be written to, holds an earlier run that this one is neither to replace nor to
            go on with, or files that no run wrote.
        TypeError: if ``config`` holds a value that JSON cannot express.

    Example:
        >>> import tempfile
        >>> run = Run(tempfile.mkdtemp(), {"guide": "IAF", "seed": 0})
        >>> run.log(epoch=1, train=-21.4, valid=float("nan"))
        >>> (run.folder / "metrics.jsonl").read_text()
        '{"epoch": 1, "train": -21.4, "valid": "nan"}\\n'
    """

    def __init__(
        self, folder: str | Path, config: Mapping[str, object], overwrite: bool = False, goes_on: bool = False
    ) -> None:
        self.folder = Path(folder)
        self.config = config
        self._figures: dict[str, Inline] = {}
        self.command = shlex.join(["python", *sys.orig_argv[1:]])
        self._origin: dict[str, Any] = {
            "command": self.command,
            "date": datetime.now().astimezone().isoformat(timespec="seconds"),
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "pyro": pyro.__version__,
            },
        }
        text = _dumps({"config": config, **self._origin}, "config", indent=2)  # before any old file goes
        try:
            if goes_on:
                self.folder.mkdir(parents=True, exist_ok=True)
                claim(self, self.folder)
            if goes_on and not overwrite and _waits_for(self.folder, json.loads(text)["config"]):
                _remove_records(self.folder)
            else:
                _clear(self.folder, overwrite)
            _replace(self.folder / "config.json", text)
        except BlockingIOError:
            raise
        except OSError as error:
            raise ValueError(f"folder must be one to write to, got {self.folder} ({error}); change --out") from error

    def log(self, **record: object) -> None:
        """Append one line to metrics.jsonl; it is on disk when this returns.

        Args:
            record: one record, such as ``epoch=3, train=-19.2, valid=-19.9`` (nats per datum).

        Raises:
            TypeError: if a value cannot be expressed in JSON.
        """
        line = _dumps(record, "record")
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def result(self, **record: object) -> None:
        """Write result.json, all of it or nothing; a second call replaces the first.

        Raises:
            TypeError: if a value cannot be expressed in JSON.
        """
        _replace(self.folder / "result.json", _dumps(record, "record", indent=2))

    def figure(self, name: str, fig: Figure, caption: str) -> Path:
        """Save a figure as ``<name>.png`` and remember it, in this order, for the report.

        Args:
            name: letters, digits, ``_`` and ``-``; a name used before replaces that figure.
            fig: the figure; it is not to be drawn once more, as the report lays it out anew.
            caption: what is seen, and what follows from it.

        Returns:
            The path of the file.

        Raises:
            ValueError: if ``name`` is not a plain file name.
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ValueError(
                f"name: expected letters, digits, '_' and '-', got {name!r}; the file name is made from it"
            )
        from dlvm.experiments.runs.inline import inline  # which --help need not wait for

        path = self.folder / f"{name}.png"
        fig.savefig(path, dpi=150)
        self._figures[name] = inline(fig, caption)
        return path

    def report(
        self, title: str, intro: str, tables: Sequence[Table], verdict: str | None = None, following: str | None = None
    ) -> Path:
        """Write report.html, self-contained, and to report.json what it is made of: tables and all figures so far.

        Args:
            title: the question the run answers.
            intro: what was done; empty lines separate paragraphs.
            tables: the results.
            verdict: the answer in a sentence or two, shown first.
            following: the command that follows its advice.

        Returns:
            The path of the page.
        """
        from dlvm.experiments.runs.page import Page
        from dlvm.experiments.runs.page_file import NAME, written

        versions = ", ".join(f"{name} {version}" for name, version in self._origin["versions"].items())
        settings = {
            key: value if isinstance(value, str) else json.dumps(value) for key, value in plain(self.config).items()
        }
        details = {
            "command": self._origin["command"],
            "date": self._origin["date"],
            "versions": versions,
            **settings,
        }
        page = Page(title, intro, tables, list(self._figures.values()), details, verdict, following)
        path = self.folder / "report.html"
        _replace(self.folder / NAME, written(page))
        _replace(path, page.html())
        return path


def plain(value: object, name: str = "config") -> Any:
    """``value`` in the types of JSON: tensors as lists, non-finite floats and paths as text.

    Args:
        value: numbers, text, ``None``, tensors, arrays, paths, dataclasses, mappings, sequences.
        name: how to call it in an error.

    Raises:
        TypeError: if a value is none of these.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Path | torch.dtype | torch.device):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value), name)
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{name}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, f"{name}[{i}]") for i, item in enumerate(value)]
    if hasattr(value, "tolist"):  # tensors, arrays and their scalars
        return plain(value.tolist(), name)
    raise TypeError(f"{name}: expected numbers, text or tensors, got {type(value).__name__}; pass its settings")


def _dumps(value: object, name: str, indent: int | None = None) -> str:
    return json.dumps(plain(value, name), indent=indent, ensure_ascii=False, allow_nan=False)


def _replace(path: Path, text: str) -> None:
    """Write next to ``path`` and rename, so that a reader never sees half a file."""
    draft = path.with_name(path.name + ".part")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def _clear(folder: Path, overwrite: bool) -> None:
    """Make ``folder`` ready for a new run, or say why that would lose something."""
    folder.mkdir(parents=True, exist_ok=True)
    if not any(path.name != LOCK for path in folder.iterdir()):
        return
    if not _is_run(folder):
        raise ValueError(
            f"folder: expected a new or empty folder, {folder} holds files that no run wrote; choose another (--out)"
        )
    if not overwrite and any((folder / name).exists() for name in ("metrics.jsonl", CELLS, CHECKPOINTS)):
        raise ValueError(
            f"folder: expected a new or empty folder, {folder} holds a run; choose another or overwrite=True "
            "(--out, --overwrite)"
        )
    for name in (CELLS, CHECKPOINTS, PAIRS):
        if (folder / name).exists():
            shutil.rmtree(folder / name)
    _remove_records(folder)


def _remove_records(folder: Path) -> None:
    """All but config.json, which is replaced: a process that dies in between leaves a folder that is a run's."""
    for path in [*(folder / name for name in RECORDS), *folder.glob("*.png")]:
        path.unlink(missing_ok=True)


def _waits_for(folder: Path, config: Mapping[str, object]) -> bool:
    """Whether a folder holds a run of these settings that something is missing from."""
    if not _is_run(folder):
        return False
    theirs = json.loads((folder / "config.json").read_text("utf-8"))["config"]
    if any(theirs.get(name) != config.get(name) for name in {*theirs, *config} - HOW):
        return False
    try:
        complete = not json.loads((folder / "result.json").read_text("utf-8")).get("failed")
    except (OSError, ValueError, AttributeError):
        complete = False
    return not (complete and (folder / "report.html").exists())


def _is_run(folder: Path) -> bool:
    try:
        return {"config", "command", "date", "versions"} <= set(json.loads((folder / "config.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return False
