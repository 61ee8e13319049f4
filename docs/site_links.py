"""A hook of the site: links that leave docs/, as readers of the checkout follow them, lead to pages of the sources."""

from __future__ import annotations

import logging
import os
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from architecture import ROOT

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

log = logging.getLogger("mkdocs.hooks.links")
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s]+?)(#[^)\s]*)?(?=\))")
FENCED = re.compile(r"(^ *(`{3,})[^\n]*\n.*?^ *\2 *$|(?<!`)`[^`\n]+`(?!`|\]))", re.MULTILINE | re.DOTALL)
LANGUAGES = {".py": "python", ".md": "markdown", ".toml": "toml", ".txt": "text", ".cff": "yaml", ".yml": "yaml"}
NOT_SHOWN = ("__pycache__", ".")  # what a listing of a folder leaves out, by how it begins
HOME = {"README.md": "index.md"}  # pages that say the same here


def outside_code(text: str) -> list[str]:
    """A page cut into what is text, at even places, and what is code, at odd ones.

    Example:
        >>> outside_code("see `a[0](1)` or [b](c.md)")
        ['see ', '`a[0](1)`', ' or [b](c.md)']
    """
    parts, start = [], 0
    for found in FENCED.finditer(text):
        parts += [text[start : found.start()], found[0]]
        start = found.end()
    return [*parts, text[start:]]


def origin(page: str) -> str:
    """Where a page of the site lies in the checkout."""
    return page if not (ROOT / "docs" / page).exists() and (ROOT / page).exists() else f"docs/{page}"


def aim(link: str, page: str) -> str:
    """What a link of a page means, from the root.

    Example:
        >>> aim("../models/vae.py", "guides.md"), aim("/nets/", "api/nets.md"), aim("a.md", "tutorials/b.md")
        ('models/vae.py', 'nets', 'docs/tutorials/a.md')
    """
    path = link.lstrip("/") if link.startswith("/") else f"{PurePosixPath(origin(page)).parent}/{link}"
    return os.path.normpath(path)


def place_of(target: str, pages: set[str]) -> str | None:
    """The page of the site that shows a file or folder of the checkout; None where there is no such file.

    Example:
        >>> place_of("docs/guides.md", {"guides.md"}), place_of("models/vae.py", set()), place_of("nets", set())
        ('guides.md', 'source/models/vae.py.md', 'source/nets/index.md')
    """
    inside = target.removeprefix("docs/")
    if inside in pages:
        return inside
    if target in HOME:
        return HOME[target]
    if target.startswith("..") or not (ROOT / target).exists():
        return None
    return f"source/{target}/index.md" if (ROOT / target).is_dir() else f"source/{target}.md"


def source_page(target: str) -> str:
    """The page of a file, with its text, or of a folder, with what lies in it."""
    path, head = ROOT / target, "---\nsearch:\n  exclude: true\nhide: [toc]\n---\n"
    if not path.is_dir():
        fence, language = "`" * 12, LANGUAGES.get(path.suffix, "text")
        return f"{head}# {path.name}\n\n`{target}`\n\n{fence}{language}\n{path.read_text('utf-8')}\n{fence}\n"
    inside = [p for p in sorted(path.iterdir()) if not p.name.startswith(NOT_SHOWN)]
    listed = (f"* [`{p.name}{'/' * p.is_dir()}`](/{p.relative_to(ROOT).as_posix()})" for p in inside)
    return "\n".join([f"{head}# {target}/", "", *listed, ""])


def targets(page: str, text: str) -> set[str]:
    return {aim(found[1], page) for part in outside_code(text)[::2] for found in LINK.finditer(part)}


def bars(line: str) -> str:
    r"""A row of a table whose code has bars as this tool reads them; elsewhere they are written with a backslash.

    Example:
        >>> bars(r"| `p(x \| z)` | a \| b |")
        '| `p(x | z)` | a \\| b |'
    """
    return re.sub("`[^`]+`", lambda code: code[0].replace("\\|", "|"), line) if line.startswith("|") else line


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page for every file that some page links to, and for those that these link to."""
    from mkdocs.structure.files import File

    pages = {file.src_uri for file in files}
    left = [(file.src_uri, file.content_string) for file in files.documentation_pages()]
    while left:
        page, text = left.pop()
        for target in targets(page, text):
            found = place_of(target, pages)
            if found is not None and found not in pages:
                content = source_page(target)
                files.append(File.generated(config, found, content=content))
                pages.add(found)
                left.append((found, content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns each link into one between pages of the site."""
    here, pages = page.file.src_uri, {file.src_uri for file in files}

    def turned(found: re.Match) -> str:
        to = place_of(aim(found[1], here), pages)
        if to is None:
            log.warning("%s links to %s, which is not there", origin(here), found[1])
            return found[0]
        return os.path.relpath(to, PurePosixPath(here).parent) + (found[2] or "")

    parts = outside_code(markdown)
    parts[::2] = [LINK.sub(turned, part) for part in parts[::2]]
    return "\n".join(bars(line) for line in "".join(parts).split("\n"))
