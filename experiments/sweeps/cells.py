"""Runs of a comparison as cells: functions of their settings, known by all that they depend on, and kept once done."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor, nn

from dlvm.experiments.data import Splits
from dlvm.experiments.options.words import own_file
from dlvm.experiments.runs.folder import CELLS, HOW, plain
from dlvm.experiments.setups.options import settings_of
from dlvm.inference.checkpoints.folder import Checkpoints, fingerprint
from dlvm.inference.training.run_state import prefixed, under

ROOT = Path(__file__).resolve().parents[2]
COMPUTING = ("nets", "distributions", "models", "guides", "inference", "evidence")
SHARED = (  # of the scripts' own room
    "data", "options", "measures", "generated", "setups",
    "runs/recipe.py", "sweeps/equal_steps.py", "sweeps/equal_time.py",
    "sweeps/chorales.py", "sweeps/few_label_ways.py", "sweeps/over_time.py", "sweeps/rules.py",
    "sweeps/sentence_ways.py",
)  # fmt: skip


class Done(NamedTuple):
    """What a cell gives: a record in the types of JSON, and tensors by name.

    A record with the key ``error`` says that the cell came to no end; it is reported, and not kept.
    """

    record: dict
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Cell:
    """One run of a comparison.

    Args:
        title: what it is called where its end is reported.
        function: (config, **names) -> Done; at the top of a module, its randomness from a seed among the names.
        config: of the script, a dataclass.
        names: which run it is: text, numbers, and tensors or mappings of them.
        data: checksums of the data, see ``fingerprints``.
        facts: what each entry of its record's ``history`` begins with in metrics.jsonl; empty to leave them out.
    """

    title: str
    function: Callable[..., Done]
    config: Any
    names: Mapping[str, object]
    data: tuple[str, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)

    @cached_property
    def parts(self) -> dict[str, str]:
        """Checksums of all that the result depends on, by the word for it."""
        file = inspect.getfile(self.function)
        config = settings_of(self.config)
        known = {
            "names": [f"{Path(file).stem}.{self.function.__qualname__}", _identity(self.names)],
            "settings": {name: plain(value) for name, value in config.items() if name not in HOW},
            "data": self.data,
            "code": [checksum_of_code(file), *own_code(config)],
            "versions of torch and Pyro": [torch.__version__, pyro.__version__],
        }
        return {word: _checksum(part) for word, part in known.items()}

    @cached_property
    def key(self) -> str:
        """One checksum of all of them."""
        return _checksum(self.parts)


class Kept:
    """The finished cells in a run's folder: safetensors and JSON, each written whole or not at all.

    Args:
        folder: of the run; cells lie in ``cells/<key>`` below it.
    """

    def __init__(self, folder: Path):
        self.folder = folder / CELLS

    def get(self, cell: Cell) -> Done | None:
        """What a cell gave; None if it is not there. A damaged one is named, and as if not there."""
        place = self.folder / cell.key
        saved = Checkpoints(place, keep=1).latest() if place.exists() else None
        return None if saved is None else Done(saved.record["record"], saved.tensors)

    def put(self, cell: Cell, done: Done) -> None:
        """Writes what a cell gave.

        Raises:
            CheckpointFailed: the disk is full, or does not let us.
        """
        record = {"title": cell.title, "parts": cell.parts, "record": done.record}
        Checkpoints(self.folder / cell.key, keep=1).write(0, done.tensors, record)

    def outdated(self, cells: Sequence[Cell]) -> dict[str, list[str]]:
        """Of cells that are not there, {title: the words for what is another} where an earlier one has that title."""
        wanted, found = {cell.title: cell.parts for cell in cells}, {}
        for place in sorted(self.folder.glob("*")) if wanted else ():
            saved = Checkpoints(place, keep=1).latest()
            title = None if saved is None else saved.record.get("title")
            if saved is not None and title in wanted:
                theirs = saved.record["parts"]
                found[title] = [word for word, part in wanted[title].items() if theirs.get(word) != part]
        return found


def fingerprints(data: Splits) -> tuple[str, ...]:
    """Checksums of the three parts, for ``Cell``."""
    return tuple(fingerprint(loader.x) for loader in data)


def states(model: nn.Module, guide: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of a pair, under ``model/`` and ``guide/``."""
    return prefixed("model", model.state_dict()) | prefixed("guide", guide.state_dict())


def filled(pair: tuple[nn.Module, nn.Module], tensors: Mapping[str, Tensor]) -> tuple[nn.Module, nn.Module]:
    """A fresh pair with the state that ``states`` noted."""
    for word, module in zip(("model", "guide"), pair, strict=True):
        module.load_state_dict(under(tensors, word))
    return pair


@cache
def checksum_of_code(script: str) -> str:
    """Of the source files that a script's numbers come from: itself, and the rooms below the scripts."""
    places = (*(ROOT / room for room in COMPUTING), *(ROOT / "experiments" / name for name in SHARED))
    files = (path for place in places for path in (sorted(place.rglob("*.py")) if place.is_dir() else [place]))
    found = hashlib.sha256()
    for path in (Path(script), *files):
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def own_code(settings: Mapping[str, object]) -> list[str]:
    """Checksums of the files that models and guides of one's own are written in."""
    files = {own_file(word) for word in settings.values() if isinstance(word, str)}
    return [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in sorted(filter(None, files))]


def _checksum(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _identity(value: object) -> object:
    if isinstance(value, Tensor):
        return fingerprint(value)
    if isinstance(value, Mapping):
        return {name: _identity(part) for name, part in value.items()}
    return plain(value, "names")
