"""What to try next as a command: that of the run with one option changed, and a folder of its own."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ENOUGH = 10_000  # importance samples, beyond which more of them are no advice


def next_command(command: str, config: Mapping[str, Any], said: str) -> str | None:
    """The command of a training run with the change that its verdict advises; None where no option is that change.

    Args:
        command: as it was given.
        config: its options, {name: value}.
        said: the verdict, with its advice behind "Next:".
    """
    changed = _change(config, said.partition("Next: ")[2])
    if changed is None:
        return None
    out = Path(config["out"])
    return with_options(command, {**changed, "out": out.with_name(f"{out.name}-next").as_posix()})


def _change(config: Mapping[str, Any], advice: str) -> dict[str, str] | None:
    """{option: value} of what is advised."""
    if advice.startswith(("train longer", "10 epochs or more")):
        return {"epochs": str(max(10, 2 * config["epochs"]))}
    if advice.startswith(("more particles", "25 particles or more")) and config["eval_particles"] < ENOUGH:
        return {"eval-particles": str(max(25, 10 * config["eval_particles"]))}
    if config["model"] == "vae" and config["guide"] == "diagonal" and config["objective"] == "elbo":
        if "free_bits" in advice and config["free_bits"] is None and config["warm_up"] is None:
            return {"free-bits": "0.25"}
        if "richer guide" in advice or advice.startswith("compare guides"):
            return {"guide": "iaf"}
    return None


def with_options(command: str, options: Mapping[str, str]) -> str:
    """A command with options set anew, or added at its end.

    Example:
        >>> with_options("python -m dlvm.experiments.train --epochs 5 --out=a", {"epochs": "10", "out": "b"})
        'python -m dlvm.experiments.train --epochs 10 --out b'
    """
    kept: list[str] = []
    words = iter(shlex.split(command))
    for word in words:
        name, given, _ = word.removeprefix("--").replace("_", "-").partition("=")
        if word == "--overwrite":
            continue
        if word.startswith("--") and name in options:
            if not given:
                next(words, None)
            continue
        kept.append(word)
    return shlex.join([*kept, *(word for name, value in options.items() for word in (f"--{name}", value))])
