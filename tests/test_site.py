"""The documentation site: it builds without a warning, its pages lead to one another, and it fetches nothing."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import gallery
import pytest
import site_links
import site_pages

from dlvm.experiments import train
from dlvm.experiments.options.command_line import parsed
from dlvm.experiments.setups.named import named

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def test_examples_of_the_hooks_print_what_they_say():
    assert doctest.testmod(site_links) == doctest.TestResults(failed=0, attempted=4)
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
    assert {"index.html", "monograph.html", "models.html"} <= {path.name for path in built}
    fetched = re.compile(
        r"<(?:script|img|iframe)[^>]*\ssrc=[\"']?(?:https?:)?//|<link[^>]*stylesheet[^>]*href=[\"']?(?:https?:)?//"
    )
    assert [path.name for path in built if fetched.search(path.read_text("utf-8"))] == []


MONOGRAPH = (ROOT / "docs" / "monograph.md").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(set(re.findall(r"`dlvm ([^`]+)`", MONOGRAPH)) - {"train --help"}))
def test_every_command_of_the_monograph_is_one(command):
    script, *options = command.split()
    config = import_module(f"dlvm.experiments.{script}").Config
    assert isinstance(parsed(config, options, script), config)


def test_every_section_of_the_monograph_has_formula_file_command_and_outcome():
    rows = [
        line.strip("| ").replace(r"\|", "/").split(" | ") for line in re.findall(r"^\| [1-4]\.\d.*", MONOGRAPH, re.M)
    ]
    sections = {row[0][:3] for row in rows}
    wanted = {1: 8, 2: 9, 3: 4, 4: 5}  # of them in each chapter
    assert sections == {f"{chapter}.{n}" for chapter, count in wanted.items() for n in range(1, count + 1)}
    for section, _, files, command, shown in rows:
        assert ".py)" in files and command.startswith("`dlvm ") and "](" in shown, section


def test_the_gallery_is_the_one_that_the_code_makes_and_its_pictures_are_small():
    text = gallery.PAGE.read_text("utf-8")
    assert gallery.written(text) == text, "python docs/gallery.py writes it anew"
    sizes = [path.stat().st_size for path in gallery.PICTURES.glob("*.png") if path.stem in gallery.SHOWN]
    assert sizes and max(sizes) <= gallery.MOST and sum(sizes) < 1_000_000
    with pytest.raises(ValueError, match="add them"):
        gallery.written("# Nothing")


@pytest.mark.slow
@pytest.mark.parametrize("word", gallery.SHOWN)
def test_every_command_of_the_gallery_is_one(word):
    config = parsed(train.Config, ["--model", word, *gallery.SHOWN[word][0].split()], "train")
    assert type(config.setup) is named(word)


def test_a_model_that_the_gallery_lacks_is_refused():
    with pytest.raises(ValueError, match="word must be one of vae, .*got 'nothing'"):
        gallery.drawn("nothing")
