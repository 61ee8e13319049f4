"""The versions that the project says it works with, in the three places that name them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TORCH = {"torch", "torchvision"}  # named by the command that installs the lowest


def pinned(file: str) -> dict[str, str]:
    """Versions by name; where they depend on Python, those for 3.10."""
    return dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / file).read_text("utf-8"), re.MULTILINE))


def bounds() -> dict[str, str]:
    """The lower bounds of what the project and its tests need."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    lists = re.findall(r"^(?:dependencies|test) = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    return dict(re.findall(r'"([\w-]+)>=([\w.]+)"', "".join(lists)))


def numbers(version: str) -> tuple[int, ...]:
    found = [int(part) for part in version.split(".")]
    return (*found, 0, 0)[:3]


def test_the_lowest_versions_that_are_tested_are_the_bounds():
    lowest = pinned("constraints-lowest.txt")
    assert not TORCH & lowest.keys()
    assert {name: numbers(bound) for name, bound in bounds().items() if name not in TORCH} == {
        name: numbers(lowest[name]) for name in bounds().keys() - TORCH
    }


def test_the_pinned_versions_are_within_the_bounds():
    found = pinned("constraints.txt")
    assert len(bounds()) > 10
    assert [name for name, bound in bounds().items() if numbers(found[name]) < numbers(bound)] == []
