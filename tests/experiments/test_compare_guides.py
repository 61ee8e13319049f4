"""The comparison of guides: its intervals against the formulas, and one story in its table, figures and words."""

from __future__ import annotations

import json
import math

import pytest
import torch

from dlvm.experiments import compare_guides
from dlvm.experiments.guides_report import CASES, FROZEN, story, verdict
from dlvm.experiments.measures.paired_gaps import Gaps, behind_a_case, headline, typical
from dlvm.experiments.options.guides import GUIDES
from dlvm.experiments.runs.folder import Run
from dlvm.experiments.runs.report import Table
from dlvm.experiments.runs.restore import restore
from dlvm.guides import IAF
from dlvm.inference.training.run_state import under


def gaps(label: str, *means: float, spread: float = 0.1, num_data: int = 400) -> Gaps:
    """A run a seed, whose data lie evenly around its mean."""
    around = torch.linspace(-1, 1, num_data) * spread
    return Gaps(label, torch.stack([mean + around for mean in means]), [-mean for mean in means])


def test_a_difference_is_paired_by_data_and_knows_the_seeds():
    """Data that are hard for both guides add nothing to the error; seeds add variance / number each."""
    a, b = gaps("A", 0.3, 0.4, spread=9.0), gaps("B", 0.2, 0.2, spread=9.0)
    error = math.sqrt(0.005 / 2)
    assert a.beyond(b) == pytest.approx((0.15, 0.15 - 2 * error, 0.15 + 2 * error), abs=1e-5)
    noise = torch.randn(400, generator=torch.Generator().manual_seed(0))
    noisy = Gaps("C", b.values + noise, b.valid).beyond(b)
    assert noisy.high - noisy.low == pytest.approx(4 * noise.std().item() / 20, rel=1e-4)


def test_the_best_run_is_chosen_by_validation_data():
    assert gaps("A", 0.4, 0.2, 0.3).chosen == 1
    assert Gaps("A", torch.tensor([[0.1], [0.2]]), [-3.0, -2.0]).chosen == 1


def test_typical_data_are_those_near_the_median():
    one, other = torch.tensor([[9.0, 1.0, 5.0, 4.9, 0.0]]), torch.tensor([[9.0, 1.0, 5.2, 4.9, 0.0]])
    assert typical([Gaps("A", one, [0.0]), Gaps("B", other, [0.0])], 2).tolist() == [3, 2]


def test_a_headline_names_all_that_noise_does_not_tell_apart():
    near = [gaps("IAF", 0.20, 0.24), gaps("FullRank", 0.22, 0.24), gaps("Diagonal", 0.50, 0.51)]
    assert headline(near, FROZEN).startswith("IAF and FullRank give the tightest bounds on one frozen model, alike")
    far = [gaps("FullRank", 0.33, 0.34), gaps("IAF", 0.22, 0.23)]
    assert headline(far, FROZEN) == "IAF gives the tightest bound on one frozen model: 0.225 nats below log p(x)"


def test_a_family_behind_a_case_of_it_is_not_said_to_lack_shape():
    behind = [gaps("Diagonal", 0.30, 0.31), gaps("FullRank", 0.50, 0.51), gaps("IAF", 0.31, 0.29)]
    (said,) = behind_a_case(behind, CASES)
    assert said.startswith("FullRank ends behind Diagonal by 0.200") and "not shape" in said
    assert set(CASES) <= {kind.__name__ for kind in GUIDES.values()}


def test_one_headline_for_words_record_and_table():
    found = [gaps("FullRank", 0.40, 0.41), gaps("IAF", 0.20, 0.21)]
    together = Table(
        ["guide", "objective", "gap"], [["IAF", "ELBO", 0.31], ["FullRank", "IWAE", 0.3]], "", {"gap": ".2f"}
    )
    said, record = verdict(found, together), story(found)
    assert said.startswith(record["headline"]) and "IAF 0.205, FullRank 0.405 (more by 0.200 [" in said
    assert "FullRank trained with IWAE leaves the smallest gap, 0.300" in said
    assert list(record["gaps"]) == ["IAF", "FullRank"]
    (difference,) = record["differences"]
    assert difference["guide"] == "FullRank" and difference["low"] < 0.2 < difference["high"]


def small(**settings) -> compare_guides.Config:
    common = dict(
        seeds=2, joint_seeds=1, epochs=1, frozen_epochs=1, hidden=(8,), eval_particles=30, eval_data=12, jobs=1
    )
    return compare_guides.Config.of(**common | settings)


@pytest.mark.slow
def test_in_tiny_form_all_figures_bear_the_headline(tmp_path, monkeypatch):
    titles, draw = {}, Run.figure

    def figure(run, name, drawn, caption):
        titles[name] = " ".join(drawn.texts[0].get_text().split())
        draw(run, name, drawn, caption)

    monkeypatch.setattr(Run, "figure", figure)
    rows = compare_guides.main(small(guides=("diagonal", "iaf"), out=tmp_path))
    assert {(row["guide"], row["objective"]) for row in rows} == {
        *(("diagonal", word) for word in compare_guides.OBJECTIVES),
        ("iaf", "elbo"),  # has no KL in closed form
        ("iaf", "iwae"),
    }
    figures = {"bounds.png", "learning_curves.png", "reconstructions.png", "samples.png", "posteriors.png"}
    assert figures | {"latent_space.png", "report.html"} <= {path.name for path in tmp_path.iterdir()}
    kept = json.loads((tmp_path / "result.json").read_text())
    one = kept["one_model"]
    pairs = {path.name: restore(path) for path in (tmp_path / "pairs").iterdir()}
    assert len(pairs) == len(rows) + len(one["runs"]) and type(pairs["guide-iaf-objective-iwae-seed-0"][1]) is IAF
    assert one["headline"] == titles["bounds"] == titles["posteriors"]
    assert one["headline"] in (tmp_path / "report.html").read_text() and kept["verdict"].startswith(one["headline"])
    for label, found in one["gaps"].items():
        elbos = [run["elbo"] for run in one["runs"] if GUIDES[run["guide"]].__name__ == label]
        assert len(elbos) == 2
        other = next(label for label in one["gaps"] if label != "IAF")
        others = [run["elbo"] for run in one["runs"] if GUIDES[run["guide"]].__name__ == other]
        # gaps of one model differ as the ELBOs do, which evaluate draws anew
        assert found["mean"] - one["gaps"][other]["mean"] == pytest.approx(sum(others) / 2 - sum(elbos) / 2, abs=0.5)


def test_only_a_frozen_model_has_a_falling_rate():
    """The rate is that of the first epoch in joint training, and nearly 0 in the last epoch on a frozen model."""
    config = small(epochs=4, frozen_epochs=4, eval_particles=2, eval_data=4)
    joint = compare_guides.trained(config, "diagonal", "elbo", 0)
    frozen = compare_guides.trained(config, "diagonal", "elbo", 0, under(joint.tensors, "model"))
    rates = [[epoch["lr"] for epoch in done.record["history"]] for done in (joint, frozen)]
    assert rates[0] == [config.lr] * 4
    cosine = [config.lr * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4)]
    assert rates[1] == pytest.approx(cosine)
    assert frozen.tensors["elbo_values"].shape == (4,) and "elbo_values" not in joint.tensors
