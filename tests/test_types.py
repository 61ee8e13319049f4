"""What `make lint` asks of types: every room is checked, and an error that is let pass says which and why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("nets", "distributions", "models", "guides", "inference", "evidence", "experiments")
CHECKED = (*ROOMS, "benchmarks")
FILES = [path for folder in CHECKED for path in sorted((ROOT / folder).rglob("*.py"))]
PASSED = re.compile(r"# type: ignore\[[a-z-]+\]  # \S")


def unexplained(line: str) -> bool:
    return re.search(r"#\s*type:\s*ignore", line) is not None and PASSED.search(line) is None


def test_every_room_is_checked_and_no_error_passes_unseen():
    text = (ROOT / "pyproject.toml").read_text("utf-8").split("[tool.mypy]")[1]
    packages = re.findall(r'^    "([\w.]+)",$', text.split("packages = [")[1].split("]")[0], re.MULTILINE)
    assert packages == [*(f"dlvm.{room}" for room in ROOMS), "benchmarks"]
    assert "ignore_errors" not in text and not re.search(r'module = .*"(dlvm|benchmarks)\b', text)


def test_an_error_that_is_let_pass_has_its_code_and_a_reason():
    found = {path: [line for line in path.read_text("utf-8").splitlines() if unexplained(line)] for path in FILES}
    assert not {str(path.relative_to(ROOT)): lines for path, lines in found.items() if lines}


@pytest.mark.parametrize("line", ["x = 1  # type: ignore", "x = 1  # type: ignore[misc]", "x = 1  #type:ignore[misc]"])
def test_what_lacks_them_is_recognised(line):
    assert unexplained(line) and not unexplained("x = 1  # type: ignore[misc]  # torch says so")
