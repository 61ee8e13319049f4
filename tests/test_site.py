"""The documentation site: it builds without a warning, its pages lead to one another, and it fetches nothing."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest
import site_links
import site_pages

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def test_examples_of_the_hooks_print_what_they_say():
    assert doctest.testmod(site_links) == doctest.TestResults(failed=0, attempted=3)
    assert doctest.testmod(site_pages).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_of_a_page_leads_to_a_file(page):
    text, name = page.read_text("utf-8"), page.relative_to(ROOT / "docs").as_posix()
    made = {*site_pages.api(), *site_pages.OUTSIDE} | {p.relative_to(ROOT / "docs").as_posix() for p in PAGES}
    missing = {target for target in site_links.targets(name, text) if site_links.place_of(target, made) is None}
    assert {target for target in missing if not (ROOT / target).is_file()} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_stand_in_fences(page):
    """Outside them Markdown takes >>> for a quotation."""
    outside = site_links.outside_code(page.read_text("utf-8"))[::2]
    assert not any(re.search("^>>>", part, re.MULTILINE) for part in outside)


def test_the_page_of_a_room_has_every_name_that_it_hands_on():
    import dlvm.guides

    assert set(re.findall(r"^::: dlvm\.guides\.(\w+)$", site_pages.room_page("guides"), re.MULTILINE)) == set(
        dlvm.guides.__all__
    )


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    pytest.importorskip("mkdocstrings", reason="the extra `docs` is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    built = sorted(tmp_path.rglob("*.html"))
    assert {"index.html", "models.html"} <= {path.name for path in built}
    fetched = re.compile(
        r"<(?:script|img|iframe)[^>]*\ssrc=[\"']?(?:https?:)?//|<link[^>]*stylesheet[^>]*href=[\"']?(?:https?:)?//"
    )
    assert [path.name for path in built if fetched.search(path.read_text("utf-8"))] == []
