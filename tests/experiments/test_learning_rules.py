"""The comparison of rules in tiny form; when a goal is come to; what cannot be learned."""

from __future__ import annotations

import json

import pytest

from dlvm.experiments import learning_rules
from dlvm.experiments.options.command_line import check_options


def small(folder, **settings):
    common = dict(subjects=("ppca",), rules=("em", "exact_gradient"), seeds=1, seconds=0.2, looks=2, out=folder)
    return learning_rules.Config(**common | settings)


@pytest.mark.slow
def test_em_comes_to_the_closed_form_and_the_report_says_so(tmp_path):
    rows = learning_rules.main(small(tmp_path / "run"))
    assert [row["rule"] for row in rows] == ["em", "exact_gradient"]
    top = learning_rules.optimum_of("ppca", small(tmp_path))
    assert top - 0.2 < rows[0]["train"] < top + 1e-4 and rows[1]["train"] < top
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert found["verdict"].startswith("On ppca: EM comes highest")
    assert (tmp_path / "run" / "curves_ppca.png").exists()


def test_a_rule_that_cannot_learn_is_left_out():
    asked = learning_rules.cells(small("x", subjects=("mixture",), rules=("em", "mcmc_em", "aevb", "score")))
    assert [cell.names["rule"] for cell in asked] == ["em", "score"]
    with pytest.raises(ValueError, match="rules must name one that can learn"):
        learning_rules.checked(small("x", subjects=("mixture",), rules=("mcmc_em",)))
    with pytest.raises(ValueError, match="rules must be different words"):
        check_options(small("x", rules=("em", "em")))


def test_a_goal_is_come_to_where_all_seeds_do():
    runs = [[{"seconds": s, "log_px": v} for s, v in run] for run in ([(0, -9), (1, -2)], [(0, -9), (2, -3), (3, -1)])]
    assert learning_rules.soon(runs, -3) == 1.5 and learning_rules.soon(runs, -2) == 2.0
    assert learning_rules.soon(runs, -1.5) is None


def test_the_verdict_names_first_near_and_last():
    rows = [
        {"subject": "ppca", "rule": rule, "log_px": value, "log_px_se": 0.0}
        for rule, value in (("em", -1.0), ("aevb", -1.05), ("naive", -4.0))
    ]
    assert learning_rules.verdict(rows, ("ppca",)) == (
        "On ppca: EM comes highest, -1.000 nats per datum; within 0.1: AEVB, reparametrised; "
        "last naive Monte Carlo, 3.000 below."
    )
