"""The command ``dlvm``: a script by its name, ``dlvm train`` for ``python -m dlvm.experiments.train``, and lists."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from dlvm.experiments.options.words import nearest

FOLDER = Path(__file__).parent


def scripts() -> dict[str, str]:
    """{name: what it is about} of the scripts beside this file, which are those that can be run."""
    found = {}
    for path in sorted(FOLDER.glob("[a-z]*.py")):
        text = path.read_text("utf-8")
        if any(line.startswith("if __name__ ==") for line in text.splitlines()):
            found[path.stem] = text.splitlines()[0].strip('"')
    return found


def models() -> dict[str, str]:
    """{word of --model: what it is}."""
    from dlvm.experiments.setups.named import about, named, words

    return {word: about(named(word)) for word in words()}


def guides() -> dict[str, str]:
    """{word of --guide: what it is}."""
    from dlvm.experiments.options.guides import GUIDES, POINTS

    return {word: first_line(made) for word, made in {**GUIDES, **POINTS}.items()}


def objectives() -> dict[str, str]:
    """{word of --objective: what it is}, those outside the bound last."""
    from dlvm.experiments.generated.outside import OUTSIDE, WEIGHTS, Sizes
    from dlvm.experiments.options.objectives import OBJECTIVES, Numbers
    from dlvm.inference import Total

    inside = {word: make(Numbers(), Total) for word, make in OBJECTIVES.items()}
    outside = {word: make(Sizes(2, 2), WEIGHTS.get(word, 1.0)) for word, make in OUTSIDE.items()}
    texts = {word: f"{made!r}: {first_line(type(made))}" for word, made in inside.items()}
    return texts | {word: f"outside the bound: {made!r}" for word, made in outside.items()}


def data() -> dict[str, str]:
    """{word of --data: what it is}; a path of one's own is one as well."""
    from dlvm.experiments.data.by_name import NAMED

    return {word: first_line(load) for word, load in NAMED.items()}


LISTS: dict[str, Callable[[], dict[str, str]]] = {
    "models": models,
    "guides": guides,
    "objectives": objectives,
    "data": data,
}


def first_line(of: Callable) -> str:
    """The first sentence of a docstring, in one line."""
    return " ".join((of.__doc__ or "").strip().split("\n\n")[0].split())


def listed(lines: Mapping[str, str]) -> str:
    """Words and what they mean, a line each, no wider than the terminal."""
    width, room = max(map(len, lines)), max(shutil.get_terminal_size().columns, 60)
    return "\n".join(f"  {word:<{width}}  {cut(about, room - width - 4)}" for word, about in lines.items())


def cut(text: str, room: int) -> str:
    """A text that fits, with an ellipsis where it did not."""
    return text if len(text) <= room else text[: room - 3].rstrip() + "..."


def usage() -> str:
    """What can be asked for, a line each."""
    lists = {name: f"the words of --{name.removesuffix('s')}, a line each" for name in LISTS}
    parts = ["usage: dlvm SCRIPT [OPTIONS]", "", listed(scripts()), "", listed(lists), ""]
    return "\n".join([*parts, "dlvm SCRIPT --help lists the options of one"])


def main() -> None:
    """Runs the script that the first word names, with the others as its options; or lists what there is.

    Raises:
        SystemExit: with the names there are, where it names none.
    """
    name, *others = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        return
    if name in LISTS:
        print(listed(LISTS[name]()))
        return
    known = scripts()
    script = name.replace("-", "_")
    if script not in known:
        meant = nearest(script, [*known, *LISTS])
        hint = "" if meant is None else f"; did you mean {meant}?"
        raise SystemExit(f"error: {name} is no script{hint} There are {', '.join(known)}; dlvm --help tells of each")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", f"dlvm.experiments.{script}", *others])
