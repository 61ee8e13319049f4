"""What every script takes beside its own options: settings from an earlier run, settings shown, and quiet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from dlvm.experiments.options.grammar import Grammar, classes, given
from dlvm.experiments.options.words import nearest

PLACES = ("out", "overwrite")  # which a run that is repeated has anew


class Beside(NamedTuple):
    """What a command line says beside a script's own options.

    Attributes:
        rest: the words without these.
        settings: {option: value} of the file that --config names; empty without one.
        shown: whether --print-config is among them.
        quiet: whether --quiet is.
    """

    rest: list[str]
    settings: Mapping[str, Any]
    shown: bool
    quiet: bool


def beside(args: Sequence[str]) -> Beside:
    """Takes --config FILE, --print-config and --quiet from a command line.

    Raises:
        ValueError: the file cannot be read, or holds no settings.
    """
    rest: list[str] = []
    words = iter(args)
    found: str | None = None
    for word in words:
        if word == "--config":
            found = next(words, "")
        elif word.startswith("--config="):
            found = word.partition("=")[2]
        elif word not in ("--print-config", "--quiet"):
            rest.append(word)
    settings = {} if found is None else _settings(Path(found))
    if "model" in settings and given("model", rest) is None:
        rest = ["--model", str(settings["model"]), *rest]
    return Beside(rest, settings, "--print-config" in args, "--quiet" in args)


def _settings(path: Path) -> dict[str, Any]:
    """The settings in a run's config.json, or in the folder of a run.

    Raises:
        ValueError: there are none.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        kept = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"config must be the config.json of a run, got {file} ({error}); change --config") from error
    settings = kept.get("config", kept) if isinstance(kept, dict) else None
    if not isinstance(settings, dict) or not settings:
        raise ValueError(f"config must hold {{option: value}}, got {file}; take the config.json of a run")
    return settings


def defaults(grammar: Grammar, settings: Mapping[str, Any], args: Sequence[str]) -> Any:
    """An instance of what a command line is parsed into, by the settings of a file; None where all is as usual.

    Options of another model than the command line asks for are left out.

    Raises:
        ValueError: the file has an option that the script has not.
    """
    if not settings:
        return grammar.kind(**grammar.defaults) if grammar.defaults else None
    kinds = list(classes(grammar.kind))
    known = {each.name for kind in kinds for each in fields(kind)}
    another = given("model", args) != settings.get("model")
    strange = [name for name in settings if name not in known]
    if strange and not another:
        meant = nearest(strange[0], known)
        hint = "" if meant is None else f"; did you mean {meant}?"
        raise ValueError(f"config has {strange[0]}, which is no option of this script{hint} Take one of its own runs")
    chosen = {name: value for name, value in settings.items() if name not in PLACES and name != "model"}
    nested = {}
    for each in fields(grammar.kind):
        inner = get_type_hints(grammar.kind)[each.name]
        if isinstance(inner, type) and is_dataclass(inner):
            nested[each.name] = inner(**_typed(inner, chosen))
    return grammar.kind(**{**grammar.defaults, **_typed(grammar.kind, chosen), **nested})


def _typed(kind: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are fields of a class, as Python has them: JSON knows neither tuples nor paths."""
    hints, found = get_type_hints(kind), {}
    for each in fields(kind):
        if each.name in settings and not is_dataclass(hints[each.name]):
            value = settings[each.name]
            of_path = isinstance(value, str) and "Path" in str(hints[each.name])
            found[each.name] = Path(value) if of_path else _tuples(value)
    return found


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def shown(config: Any) -> str:
    """A script's settings as --config takes them."""
    settings = config.settings() if hasattr(config, "settings") else asdict(config)
    return json.dumps({"config": settings}, indent=2, default=str)
