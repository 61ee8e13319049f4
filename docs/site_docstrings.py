"""Docstrings as this house writes them, turned into what the site's parser reads."""

from __future__ import annotations

import re
from typing import Any

import griffe

SECTION = re.compile(r"^(References|Sites|Shape|Shapes):\n((?:(?: {4}.*)?\n?)+)", re.MULTILINE)
ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


def entries(block: str) -> list[str]:
    """The entries of a section, each on one line; an entry ends with its full stop, or where the next is no deeper.

    Example:
        >>> entries("    A paper, of two\\n    lines, 2014.\\n    Another, 2015.\\n")
        ['A paper, of two lines, 2014.', 'Another, 2015.']
    """
    found: list[str] = []
    for line in filter(None, (line.strip() for line in block.splitlines())):
        if found and not found[-1].endswith("."):
            found[-1] += f" {line}"
        else:
            found.append(line)
    return found


def readable(docstring: str) -> str:
    """A docstring with its references as links, its sites as a list, and its example where examples are looked for."""

    def listed(found: re.Match) -> str:
        lines = [ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", line) for line in entries(found[2])]
        return "\n".join([f"**{found[1]}**", "", *(f"* {line}" for line in lines), "", ""])

    text = SECTION.sub(listed, docstring.rstrip() + "\n")
    return re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE).replace("``", "`")


class HouseStyle(griffe.Extension):
    """Rewrites every docstring once it is read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value)
