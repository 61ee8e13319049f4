"""What the documentation shows runs, and the table in it is the one that the code makes."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import architecture
import catalogue
import pytest

from dlvm.experiments import train
from dlvm.experiments.objective_table import CONTINUOUS, DISCRETE, OBJECTIVES, cell, table, written
from dlvm.experiments.options.command_line import parsed
from dlvm.experiments.setups.named import named, words

DOCS = Path(__file__).parent.parent / "docs"
OBJECTIVES_PAGE = DOCS / "objectives.md"


LONG = {"evidence"}


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=pytest.mark.slow) if p.stem in LONG else p for p in sorted(DOCS.glob("*.md"))],
    ids=lambda page: page.stem,
)
def test_examples_print_what_they_say(page):
    report = []
    test = doctest.DocTestParser().get_doctest(page.read_text("utf-8"), {}, page.stem, str(page), 0)
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append)
    assert not report, "".join(report)


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted((DOCS / "tutorials").glob("[0-9]*.md")), ids=lambda page: page.stem)
def test_tutorials_run_and_their_claims_hold(page):
    code = "\n".join(re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL))
    assert "assert" in code
    exec(compile(code, str(page), "exec"), {"__name__": page.stem})


def test_every_tutorial_is_in_the_index_and_is_a_notebook():
    index = (DOCS / "tutorials" / "index.md").read_text("utf-8")
    for page in sorted((DOCS / "tutorials").glob("[0-9]*.md")):
        assert f"({page.name})" in index
        text = page.read_text("utf-8")
        assert text.count("```") == 2 * text.count("```python"), "only Python in fences, as notebooks have it"
    jupytext = pytest.importorskip("jupytext", reason="jupytext, which makes notebooks of them, is not installed")
    kinds = [cell.cell_type for cell in jupytext.read(page).cells]
    assert kinds.count("code") >= 3 and kinds[0] == "markdown"


def test_a_bound_of_ones_own_takes_at_most_ten_lines():
    (code,) = re.findall(r">>> def \w+\(log_w\):\n(?:\.\.\. .*\n)+", OBJECTIVES_PAGE.read_text("utf-8"))
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


def test_the_picture_of_the_house_is_drawn_from_its_imports():
    text = architecture.PAGE.read_text("utf-8")
    assert architecture.written(text) == text, "python docs/architecture.py draws it anew"
    assert "inference_training --> inference_objectives" in text and "models --> distributions" in text
    with pytest.raises(ValueError, match="add them"):
        architecture.written("# Nothing")


def test_examples_of_what_draws_it_print_what_they_say():
    assert doctest.testmod(architecture) == doctest.TestResults(failed=0, attempted=3)
    assert doctest.testmod(catalogue) == doctest.TestResults(failed=0, attempted=2)


def test_the_catalogue_is_the_one_that_the_models_make():
    text = catalogue.PAGE.read_text("utf-8")
    assert catalogue.written(text) == text, "python docs/catalogue.py writes it anew"
    with pytest.raises(ValueError, match="add them"):
        catalogue.written("# Nothing")


@pytest.mark.parametrize("word", words())
def test_every_model_says_what_is_exact_its_formula_its_source_and_a_command_that_is_one(word):
    setup, kind = named(word), catalogue.program(word)
    assert setup.exact and catalogue.formula(kind) and (catalogue.references(setup) or catalogue.references(kind))
    config = parsed(train.Config, ["--model", word, *setup.command.split()], "train")
    assert type(config.setup) is setup


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_files_and_folders_that_a_page_names_are_there(page):
    """By their path, or by a part of it."""
    root = DOCS.parent
    kept = [f"/{p.relative_to(root).as_posix()}" for f in root.glob("[!.]*") if f.is_dir() for p in f.rglob("*.py")]
    named = re.findall(r"`((?:\w+/)+(?:\w+\.py)?|\w+\.py)`", (root / page).read_text("utf-8"))
    assert [each for each in named if "NAME" not in each and not any(f"/{each}" in path for path in kept)] == []
