"""Every script once, in tiny form, and what it leaves behind."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dlvm.experiments import compare_guides, train
from dlvm.experiments.measures.posterior_grid import densities
from dlvm.experiments.options import command_line
from dlvm.experiments.runs.folder import Run
from dlvm.experiments.runs.report import Table
from dlvm.guides import FullRank, latents
from dlvm.inference.training.run_state import under
from dlvm.models import PPCA
from dlvm.nets import MLP

RECORDS = {"config.json", "metrics.jsonl", "result.json", "report.html", "learning_curves.png", "reconstructions.png"}


def small(folder: Path, **settings) -> train.Config:
    common = dict(hidden=(16,), epochs=2, eval_particles=30, eval_data=20, out=folder)
    return train.Config(**common | settings)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The folder of a run of the defaults, and its result."""
    folder = tmp_path_factory.mktemp("plain")
    return folder, train.main(small(folder))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        dict(guide="full_rank", objective="analytic_kl", z_dim=3),
        dict(guide="iaf", objective="iwae", num_particles=2, optimizer="adamax", clip_norm=1.0),
        dict(objective="renyi", num_particles=2, optimizer="sgd", lr=1e-5, patience=None, lr_decay=0.9),
    ],
)
def test_train_writes_a_whole_run_folder(plain, tmp_path, settings):
    folder, result = (tmp_path, train.main(small(tmp_path, **settings))) if settings else plain
    assert RECORDS | {"model.safetensors", "guide.safetensors"} <= {path.name for path in folder.iterdir()}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    kept = json.loads((folder / "result.json").read_text())
    assert kept["elbo"] == result.elbo and kept["num_data"] == 20
    assert result.elbo == pytest.approx(-(result.rate + result.distortion))
    weights = load_file(folder / "model.safetensors")
    assert sum(v.numel() for k, v in weights.items() if "prior" not in k) == kept["parameters"]["model"]


@pytest.mark.slow
def test_train_repeats_itself_under_one_seed(plain, tmp_path):
    _, first = plain
    assert train.main(small(tmp_path / "again")) == first
    assert train.main(small(tmp_path / "other", seed=1)).elbo != first.elbo


def test_train_on_real_numbers_from_a_csv_file(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 5))
    np.savetxt(tmp_path / "mine.csv", x, delimiter=",", header="a,b,c,d,e", comments="")
    settings = dict(data=str(tmp_path / "mine.csv"), likelihood="normal", binarize="none", epochs=40, eval_data=None)
    result = train.main(small(tmp_path / "run", **settings))
    assert -9 < result.log_px < -6.5  # five standard normal numbers have an entropy of 7.09 nats


def test_train_refuses_grey_data_under_a_bernoulli(tmp_path):
    with pytest.raises(ValueError, match="outside its likelihood's support.*binarise grey levels"):
        train.main(small(tmp_path, binarize="none"))


def test_train_keeps_an_earlier_run_unless_told(plain):
    folder, _ = plain
    with pytest.raises(ValueError, match="holds a run"):
        train.main(small(folder))


def test_compare_guides_in_tiny_form(tmp_path, monkeypatch):
    titles, draw = {}, Run.figure

    def figure(run, name, drawn, caption):
        titles[name] = drawn.texts[0].get_text()
        draw(run, name, drawn, caption)

    monkeypatch.setattr(Run, "figure", figure)
    rows = compare_guides.main(
        compare_guides.Config(seeds=1, epochs=1, hidden=(8,), eval_particles=30, eval_data=12, jobs=1, out=tmp_path)
    )
    assert {(row["guide"], row["objective"]) for row in rows} == {
        (g, o) for g in compare_guides.Config().guides for o in compare_guides.OBJECTIVES
    }
    by_cell = {(row["guide"], row["objective"]): row for row in rows}
    assert by_cell["diagonal", "analytic_kl"]["kl"] == "analytic"
    assert by_cell["iaf", "analytic_kl"]["kl"] == "Monte Carlo"
    figures = {"bounds.png", "samples.png", "posteriors.png", "latent_space.png"}
    assert RECORDS | figures <= {path.name for path in tmp_path.iterdir()}
    assert "tightest bound on one frozen model" in titles["bounds"] == titles["posteriors"]
    assert titles["bounds"] in (tmp_path / "report.html").read_text()


def test_one_headline_for_the_report_and_the_figures():
    one_model = Table(
        ["guide", "test ELBO", "gap"],
        [["FullRank", -24.7, 0.4], ["IAF", -24.5, 0.2]],
        "",
        {"test ELBO": ".2f", "gap": ".2f"},
    )
    together = Table(
        ["guide", "objective", "gap"], [["IAF", "ELBO", 0.31], ["FullRank", "IWAE", 0.3]], "", {"gap": ".2f"}
    )
    said = compare_guides.verdict(one_model, together)
    assert said.startswith(compare_guides.headline(one_model))
    assert (
        "IAF gives the tightest bound on one frozen model: 0.200 nats" in said and "IAF 0.200, FullRank 0.400" in said
    )
    assert "FullRank trained with IWAE leaves the smallest gap, 0.300" in said


def test_only_a_frozen_model_has_a_falling_rate():
    """The rate is that of the first epoch in joint training, and nearly 0 in the last epoch on a frozen model."""
    config = compare_guides.Config(hidden=(8,), epochs=4, eval_particles=2, eval_data=4)
    joint = compare_guides.trained(config, "diagonal", "elbo", 0)
    frozen = compare_guides.trained(config, "diagonal", "elbo", 0, under(joint.tensors, "model"))
    rates = [[epoch["lr"] for epoch in done.record["history"]] for done in (joint, frozen)]
    assert rates[0] == [config.lr] * 4
    cosine = [config.lr * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4)]
    assert rates[1] == pytest.approx(cosine)


@pytest.mark.parametrize(
    "script",
    ["train", "compare_guides", "compare_bounds", "estimator_snr", "hierarchy", "evidence", "gaps", "rate_distortion"],
)
def test_help_explains_every_option(script, monkeypatch, capsys):
    module = importlib.import_module(f"dlvm.experiments.{script}")
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit, match="0"):
        command_line.start(module.main, module.Config, script)
    shown = capsys.readouterr().out
    assert f"python -m dlvm.experiments.{script}" in shown
    assert "--data" in shown and "--out" in shown and "Replace an earlier run" in shown
    assert "(required)" not in shown


def test_a_mistake_ends_in_one_line(tmp_path):
    command = [sys.executable, "-m", "dlvm.experiments.train", "--data", "mnits", "--out", str(tmp_path / "run")]
    failed = subprocess.run(command, capture_output=True, text=True)
    assert failed.returncode == 1 and "Traceback" not in failed.stderr
    assert failed.stderr.startswith("error: name must be digits, mnist, fashion_mnist, binarized_mnist or a path")
    assert not (tmp_path / "run").exists()


def test_grid_agrees_with_the_closed_form(float64):
    model = PPCA(torch.tensor([[1.0, 0.5], [0.0, 1.0], [1.0, -1.0]]), torch.zeros(3), 0.5)
    x = torch.tensor([[1.0, -1.0, 0.5], [0.3, 0.2, -0.1]])
    guide = FullRank(latents(model, x), MLP(3, 8))
    found = densities(model, {"guide": guide}, x)
    assert torch.allclose(found.log_px, model.log_px(x), atol=1e-6)
    q, p = guide.posteriors[0](guide.features(x)), model.posterior(x)
    assert torch.allclose(found.kl["guide"], torch.distributions.kl_divergence(q, p), rtol=1e-4)
    assert (found.posterior.flatten(1).argmax(1) // 101 - 50).abs().max() < 30  # the window holds the mode
