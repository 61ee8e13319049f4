"""A hook of the site: pages that are made, not written: those of the rooms, and those that lie outside docs/."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from architecture import ROOMS, ROOT, files, folders, modules, place, thinned, tree

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

DOCS, IMPORTED = ROOT / "docs", ROOT / "build" / "imported"
OUTSIDE = ("experiments/results.md", "benchmarks/results.md", "CHANGELOG.md", "CONTRIBUTING.md")
FACES = (*(room for room in ROOMS if room != "experiments"), "experiments/data", "experiments/figures")


def linked() -> None:
    """Makes build/imported/dlvm, where the rooms lie as they are imported."""
    (IMPORTED / "dlvm").mkdir(parents=True, exist_ok=True)
    for room in ROOMS:
        link = IMPORTED / "dlvm" / room
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(ROOT / room)


def first_line(node: ast.AST) -> str:
    """The first sentence of what a module says of itself."""
    return (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ").replace("``", "`")


def shown(face: str) -> dict[str, list[tuple[str, str]]]:
    """{folder: [(name, file)]} of what a room hands on, by the folder that it is written in."""
    module = tree(ROOT / face / "__init__.py")
    public = next(
        set(ast.literal_eval(node.value))
        for node in module.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__"
    )
    found: dict[str, list[tuple[str, str]]] = {}
    for node in module.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "") in modules():
            path = modules()[str(node.module)].relative_to(ROOT).as_posix()
            names = [alias.asname or alias.name for alias in node.names]
            found.setdefault(path.rpartition("/")[0], []).extend((n, path) for n in names if n in public)
    return dict(sorted(found.items()))


def room_page(face: str) -> str:
    """The page of a room: what it is, then each name, by folder, with its file."""
    lines = [f"# dlvm.{face.replace('/', '.')}", "", first_line(tree(ROOT / face / "__init__.py")), ""]
    for folder, names in shown(face).items():
        lines += [f"## {folder}/", "", first_line(tree(ROOT / folder / "__init__.py")) if folder != face else "", ""]
        for name, path in sorted(names, key=lambda each: each[0].lower()):
            lines += [f"::: dlvm.{face.replace('/', '.')}.{name}", "", f"In [`{path}`](/{path}).", ""]
    return "\n".join(lines)


def scripts_page() -> str:
    """The page of the scripts: what each asks, in a line."""
    lines = ["# dlvm.experiments", "", first_line(tree(ROOT / "experiments" / "__init__.py")), ""]
    lines += [
        "`dlvm --help` lists the same, `dlvm NAME --help` the options of one.",
        "",
        "| script | what it asks |",
        "|---|---|",
    ]
    for path in sorted((ROOT / "experiments").glob("[a-z]*.py")):
        if "__main__" in path.read_text("utf-8"):
            said = first_line(tree(path)).replace("|", "\\|")
            lines.append(f"| [`{path.stem}`](/{path.relative_to(ROOT).as_posix()}) | {said} |")
    return "\n".join([*lines, ""])


def api() -> dict[str, str]:
    """{page: text} of the rooms and of the scripts, from the top of the house down."""
    made = {"api/experiments.md": scripts_page()}
    for face in FACES:
        made[f"api/{face.replace('/', '_')}.md"] = room_page(face)
    return made


def chart() -> str:
    """The picture of the house without a script to draw it: rooms from the top down, and under each what it imports."""
    lines = ['<div class="house">']
    between = {room: set() for room in ROOMS}
    for name, names in folders().items():
        between[name.split(".")[0]] |= {to.split(".")[0] for to in names} - {name.split(".")[0]}
    for room, below in thinned(between).items():
        inside = {name: {to for to in names if to.split(".")[0] == room} for name, names in folders().items()}
        inside = thinned({name: names for name, names in inside.items() if name.split(".")[0] == room})
        lines.append(f"<div><b>{room}/</b>{arrow(below)}<ul>")
        for name in sorted(inside):
            own = " ".join(sorted(module.split(".")[-1] for module in files() if place(module) == name))
            title = own if name == room else f"{name.split('.')[1]}/"
            lines.append(f"<li>{title}{arrow(inside[name])}</li>" if title else "")
        lines.append("</ul></div>")
    return "\n".join([*filter(None, lines), "</div>"])


def arrow(names: set[str]) -> str:
    """What is imported, by the last part of its name, or nothing.

    Example:
        >>> arrow({"inference.bounds"})
        ' <i>→ bounds</i>'
    """
    return f" <i>→ {', '.join(sorted(name.split('.')[-1] for name in names))}</i>" if names else ""


def chapters() -> list[str]:
    """The tutorials, in the order of their file names; an index first."""
    return sorted(
        (f"tutorials/{p.name}" for p in (DOCS / "tutorials").glob("*.md")), key=lambda n: ("index" not in n, n)
    )


def filled(nav: list) -> list:
    """The navigation with folders put in place of their names, and without pages that are not there."""
    made: list = []
    for entry in nav:
        (title, below) = next(iter(entry.items())) if isinstance(entry, dict) else ("", entry)
        if isinstance(below, list):
            made.append({title: filled(below)})
        elif below == "api/":
            made.append({title: list(api())})
        elif below == "tutorials/":
            made += [{title: chapters()}] if chapters() else []
        elif below in OUTSIDE or (DOCS / below).is_file():
            made.append(entry)
    return made


def on_startup(**_: object) -> None:
    linked()


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    config.nav = filled(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    from mkdocs.structure.files import File

    made = api() | {page: (ROOT / page).read_text("utf-8") for page in OUTSIDE}
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """A Mermaid chart needs a script from elsewhere: here it stands as boxes."""
    return re.sub(r"^```mermaid\n.*?^```$", lambda _: chart(), markdown, flags=re.MULTILINE | re.DOTALL)
