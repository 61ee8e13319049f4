"""What README shows runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
PAGES = [README, README.parent / "docs" / "library.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_example_trains_and_evaluates(page, capsys):
    code = re.search(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)[1]
    shorter = code
    for long, short in (("epochs=20", "epochs=2"), ("num_particles=1000", "num_particles=30"), ("5 * len", "1 * len")):
        assert shorter.count(long) == 1
        shorter = shorter.replace(long, short)
    names: dict = {}
    exec(compile(shorter, str(page), "exec"), names)
    shown = capsys.readouterr().out
    assert "epoch    2" in shown and "log p(x)" in shown
    assert names["model"](n=7).shape == (7, 64)


def test_every_make_target_it_names_exists():
    targets = set(re.findall(r"^([a-z-]+):", (README.parent / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z-]+)", README.read_text())) - {"by", "of"} <= targets


def test_links_lead_to_files_that_are_there():
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", README.read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (README.parent / link).exists()]
    assert not missing, f"README links to what is not there: {missing}"
