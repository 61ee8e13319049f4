"""What is asked before a commit is what `make lint` asks, and the changelog has the form that it names."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_hooks_before_a_commit_run_what_make_lint_runs():
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)[1]
    asked = re.findall(r"^\t\$\(RUN\) (-m .*)$", recipe, re.MULTILINE)
    hooks = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    entries = re.findall(r"^ +entry: .*?\.venv/bin/python (-m [^'\n]*)'?$", hooks, re.MULTILINE)
    assert asked and set(entries) == {*asked, "-m ruff format --check"}
    assert set(re.findall(r"repo: (.*)", hooks)) == {"local"}, "a hook from elsewhere needs a network"


def test_the_changelog_has_dated_versions_under_unreleased():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    first, *versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert first == "[Unreleased]"
    assert versions and all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version) for version in versions)
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= kinds
