"""What the documentation shows runs, and the table in it is the one that the code makes."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from dlvm.experiments.objective_table import CONTINUOUS, DISCRETE, OBJECTIVES, cell, table, written

DOCS = Path(__file__).parent.parent / "docs"
OBJECTIVES_PAGE = DOCS / "objectives.md"


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_examples_print_what_they_say(page):
    report = []
    test = doctest.DocTestParser().get_doctest(page.read_text("utf-8"), {}, page.stem, str(page), 0)
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append)
    assert not report, "".join(report)


def test_a_bound_of_ones_own_takes_at_most_ten_lines():
    (code,) = re.findall(r">>> class \w+\(Objective\):\n(?:\.\.\. .*\n)+", OBJECTIVES_PAGE.read_text("utf-8"))
    assert len(code.splitlines()) <= 10


def rows(column: str) -> dict[str, str]:
    """{objective: cell} of a column of the page's tables."""
    found = {}
    for block in OBJECTIVES_PAGE.read_text("utf-8").split("\n\n"):
        lines = [[part.strip() for part in line.strip("|").split("|")] for line in block.splitlines()]
        if lines[0][0] == "objective" and column in lines[0]:
            found |= {line[0].strip("`"): line[lines[0].index(column)] for line in lines[2:] if len(line) > 1}
    return found


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("estimator", ["`ScoreFunction`", "`VIMCO`"])
def test_cells_of_discrete_sites_are_what_the_code_makes(objective, estimator):
    assert cell(OBJECTIVES[objective], DISCRETE[estimator], discrete=True) == "exact to 1e-9"
    assert rows(estimator)[objective] == "exact to 1e-9"


def test_the_page_has_every_objective_and_estimator():
    for estimators in (CONTINUOUS, DISCRETE):
        for column in estimators:
            assert set(rows(column)) == set(OBJECTIVES), column


@pytest.mark.slow
def test_the_table_is_the_one_that_the_code_makes(capsys):
    text = OBJECTIVES_PAGE.read_text("utf-8")
    lines = ["Continuous latent site:", "", *table(CONTINUOUS, discrete=False)]
    lines += ["", "Discrete latent site:", "", *table(DISCRETE, discrete=True)]
    assert written(text, lines) == text


def test_a_document_without_a_place_for_the_table_is_refused():
    with pytest.raises(ValueError, match="out must have the lines <!-- table -->"):
        written("# Nothing", [])
