"""The rooms and what each imports, read from the sources; run, it writes the picture into docs/architecture.md."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
ROOMS = ("experiments", "evidence", "inference", "guides", "models", "distributions", "nets")
MARK, END = "<!-- picture: python docs/architecture.py -->", "<!-- end of picture -->"
ON_A_LINE = 5

Arrows = Mapping[str, set[str]]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@cache
def modules() -> dict[str, Path]:
    """{dotted name: file} of every module; a folder's ``__init__`` bears the folder's name."""
    paths = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    names = [".".join(("dlvm", *path.relative_to(ROOT).with_suffix("").parts)) for path in paths]
    return {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}


def is_face(module: str) -> bool:
    return modules()[module].name == "__init__.py"


def imported(source: ast.AST, known: Iterable[str]) -> set[str]:
    """The modules among `known` that a source imports, wherever in it, for types only or not.

    Example:
        >>> imported(ast.parse("from dlvm.nets import mlp"), ["dlvm.nets", "dlvm.nets.mlp"])
        {'dlvm.nets.mlp'}
    """
    known, found = set(known), set()
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in names}
    return found & known


@cache
def files() -> dict[str, set[str]]:
    """{module: modules it imports}, without the faces, which import what they show."""
    inner = {module: path for module, path in modules().items() if not is_face(module)}
    return {module: imported(tree(path), modules()) - {module} for module, path in inner.items()}


def place(module: str) -> str:
    """The sub-package that a module lies in, or the room, for a room's own files and its face.

    Example:
        >>> place("dlvm.guides.flows")
        'guides'
    """
    parts = module.split(".")[1:]
    return ".".join(parts[:2]) if (ROOT / "/".join(parts[:2])).is_dir() else parts[0]


@cache
def folders() -> dict[str, set[str]]:
    """{room or sub-package: rooms and sub-packages that its files import}."""
    found = {place(module): set() for module in modules()}
    for module, names in files().items():
        found[place(module)] |= {place(name) for name in names} - {place(module)}
    return found


def beyond(arrows: Arrows, start: str) -> set[str]:
    """All that is reached from `start` along the arrows; `start` itself only by a circle."""
    seen, left = set(), set(arrows.get(start, ()))
    while left:
        seen |= left
        left = set().union(*(arrows.get(name, ()) for name in left)) - seen
    return seen


def thinned(arrows: Arrows) -> dict[str, set[str]]:
    """Without the arrows that a longer way makes plain.

    Example:
        >>> thinned({"a": {"b", "c"}, "b": {"c"}})
        {'a': {'b'}, 'b': {'c'}}
    """
    return {a: {b for b in to if not any(b in beyond(arrows, c) for c in to - {b})} for a, to in arrows.items()}


def picture() -> list[str]:
    """The lines of a Mermaid chart: rooms as boxes, their sub-packages in them, an arrow from who imports to what."""
    lines = ["```mermaid", "flowchart TB"]
    for room in ROOMS:
        inside = {name: {to for to in names if to.split(".")[0] == room} for name, names in folders().items()}
        inside = {name: names for name, names in inside.items() if name.split(".")[0] == room}
        own = sorted(m.split(".")[-1] for m in files() if place(m) == room)
        lines.append(f'  subgraph {room}["{room}/"]')
        lines += [f'    {node(name)}["{label(name, own)}"]' for name in sorted(inside) if name != room or own]
        lines += [f"    {node(a)} --> {node(b)}" for a, to in sorted(thinned(inside).items()) for b in sorted(to)]
        lines.append("  end")
    outside = {room: set() for room in ROOMS}
    for name, names in folders().items():
        outside[name.split(".")[0]] |= {to.split(".")[0] for to in names} - {name.split(".")[0]}
    lines += [f"  {a} --> {b}" for a, to in thinned(outside).items() for b in sorted(to)]
    return [*lines, "```"]


def node(name: str) -> str:
    return name.replace(".", "_") if "." in name else f"{name}_files"


def label(name: str, own: list[str]) -> str:
    """A sub-package's name; of a room's own files, their names."""
    if "." in name:
        return name.split(".")[1] + "/"
    return "<br/>".join(" ".join(own[i : i + ON_A_LINE]) for i in range(0, len(own), ON_A_LINE))


def contents() -> list[str]:
    """The lines of a table: what every room and sub-package says of itself."""
    lines = ["| folder | what is in it |", "|---|---|"]
    for name in sorted(folders(), key=lambda name: (ROOMS.index(name.split(".")[0]), name)):
        said = ast.get_docstring(tree(modules()[f"dlvm.{name}"])).splitlines()[0]
        lines.append(f"| `{name.replace('.', '/')}/` | {said.replace('|', chr(92) + '|').replace('``', '`')} |")
    return lines


def written(text: str) -> str:
    """The page with picture and table in their place.

    Raises:
        ValueError: the page has no place for them.
    """
    if MARK not in text or END not in text:
        raise ValueError(f"{PAGE} must have the lines {MARK} and {END}, for the picture to stand between; add them")
    body = "\n".join([MARK, "", *picture(), "", *contents(), "", END])
    return re.sub(f"{re.escape(MARK)}.*{re.escape(END)}", lambda _: body, text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
    print(f"written to {PAGE}", file=sys.stderr)
