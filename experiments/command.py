"""The command ``dlvm``: every script by its name, ``dlvm train ...`` for ``python -m dlvm.experiments.train ...``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dlvm.experiments.options.words import nearest

FOLDER = Path(__file__).parent


def scripts() -> dict[str, str]:
    """{name: what it is about} of the scripts beside this file, which are those that can be run."""
    found = {}
    for path in sorted(FOLDER.glob("*.py")):
        text = path.read_text("utf-8")
        if any(line.startswith("if __name__ ==") for line in text.splitlines()):
            found[path.stem] = text.splitlines()[0].strip('"')
    return found


def usage() -> str:
    """What can be asked for, a line each."""
    width = max(map(len, scripts()))
    lines = [f"  {name:<{width}}  {about}" for name, about in scripts().items()]
    return "\n".join(["usage: dlvm SCRIPT [OPTIONS]", "", *lines, "", "dlvm SCRIPT --help lists the options of one"])


def main() -> None:
    """Runs the script that the first word names, with the others as its options.

    Raises:
        SystemExit: with the names there are, where it names none.
    """
    name, *others = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        return
    known = scripts()
    script = name.replace("-", "_")
    if script not in known:
        meant = nearest(script, known)
        hint = "" if meant is None else f"; did you mean {meant}?"
        raise SystemExit(f"error: {name} is no script{hint} There are {', '.join(known)}; dlvm --help tells of each")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", f"dlvm.experiments.{script}", *others])
