"""The catalogue of models, read from the code; run, it writes docs/models.md, with the pictures of docs/gallery.py."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import get_args, get_type_hints

from dlvm.experiments.setups.named import about, named, words

ROOT = Path(__file__).resolve().parent.parent
PAGE, PICTURES = ROOT / "docs" / "models.md", ROOT / "docs" / "pictures"
MARK, END = "<!-- catalogue: python docs/catalogue.py -->", "<!-- end of catalogue -->"


def program(word: str) -> type:
    """The class of the model that a setup makes, by the annotation of its ``model``; the first of several."""
    kind = get_type_hints(named(word).model)["return"]
    return next(iter(get_args(kind)), kind)


def formula(kind: type) -> list[str]:
    """The factorisation in a docstring: its first lines that are set apart by four blanks.

    Example:
        >>> formula(program("ppca"))
        ['p(x, z) = N(z; 0, I) N(x; W z + loc, scale^2 I)']
    """
    text = inspect.getdoc(kind) or ""
    found = re.search(r"\n\n((?: {4}.*\n)+)", text.partition("\nSites:")[0] + "\n")
    return [] if found is None else [line[4:] for line in found[1].splitlines()]


def references(kind: type) -> list[str]:
    """What a docstring refers to, an entry each.

    Example:
        >>> references(program("vae"))[0]
        'Auto-Encoding Variational Bayes, Kingma, Welling, 2014, arXiv:1312.6114.'
    """
    text = inspect.getdoc(kind) or ""
    lines = re.search(r"^References:\n((?: {4}.*\n?)+)", text, re.MULTILINE)
    found: list[str] = []
    for line in () if lines is None else lines[1].splitlines():
        if found and not found[-1].endswith("."):
            found[-1] += f" {line.strip()}"
        else:
            found.append(line.strip())
    return found


def source(kind: type) -> str:
    """Where a class is written, from the root."""
    return Path(inspect.getsourcefile(kind) or "").resolve().relative_to(ROOT).as_posix()


def command(word: str) -> str:
    """What trains the model well."""
    return " ".join(filter(None, ["dlvm train --model", word, named(word).command]))


def entry(word: str) -> list[str]:
    """A model in full: what it is, its factorisation, where it is from, its file, its command, and what is exact."""
    setup, kind = named(word), program(word)
    refs = references(setup) or references(kind)
    files = ", ".join(f"[{path}](../{path})" for path in (source(kind), source(setup)))
    shown = [f"![What `{word}` makes]({PICTURES.name}/{word}.png)", ""] if (PICTURES / f"{word}.png").exists() else []
    return [
        f"### `{word}`",
        "",
        about(setup),
        "",
        *(["```", *formula(kind), "```", ""] if formula(kind) else []),
        f"* `{command(word)}`",
        f"* Exact: {setup.exact}.",
        f"* {files}",
        *(f"* {ref}" for ref in refs),
        "",
        *shown,
    ]


def catalogue() -> list[str]:
    """The table of all models, and each in full below it."""
    cells = [
        (f"[`{word}`](#{word})", about(named(word)).rstrip("."), f"`{program(word).__name__}`", named(word).exact)
        for word in words()
    ]
    rows = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells]
    head = ["| word | what it is | program | exact |", "|---|---|---|---|"]
    return [*head, *rows, "", *(line for word in words() for line in entry(word))]


def written(page: str) -> str:
    """A page with the catalogue between its marks.

    Raises:
        ValueError: the page has no marks.
    """
    if not (MARK in page and END in page):
        raise ValueError(f"page must have the lines {MARK} and {END}, between which the catalogue goes; add them")
    before, _, rest = page.partition(MARK)
    return "\n".join([f"{before}{MARK}\n", *catalogue(), f"{END}{rest.partition(END)[2]}"])


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
    print(f"written to {PAGE}")
