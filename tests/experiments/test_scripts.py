"""Every script once, in tiny form, and what it leaves behind."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dlvm.distributions import Bits, ChainRule, StandardNormal
from dlvm.experiments import train
from dlvm.experiments.measures.posterior_grid import densities
from dlvm.experiments.options import command_line
from dlvm.experiments.options.objectives import objective_of
from dlvm.experiments.runs.summary import summary
from dlvm.experiments.sweeps.annealing import annealed
from dlvm.guides import FullRank, FullyObserved, latents
from dlvm.inference import evaluate
from dlvm.models import PPCA, FullyVisible
from dlvm.nets import MLP, OrderedMADE

RECORDS = {"config.json", "metrics.jsonl", "result.json", "report.html", "learning_curves.png", "reconstructions.png"}


def small(folder: Path, **settings) -> train.Config:
    common = dict(hidden=(16,), epochs=2, eval_particles=30, eval_data=20, out=folder)
    return train.Config.of(**common | settings)


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


@pytest.mark.slow
def test_train_on_real_numbers_from_a_csv_file(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 5))
    np.savetxt(tmp_path / "mine.csv", x, delimiter=",", header="a,b,c,d,e", comments="")
    settings = dict(data=str(tmp_path / "mine.csv"), likelihood="normal", binarize="none", epochs=40, eval_data=None)
    result = train.main(small(tmp_path / "run", **settings))
    assert -9 < result.log_px < -6.5  # five standard normal numbers have an entropy of 7.09 nats


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        ({}, 5),
        (dict(epochs=8), 2),
        (dict(epochs=3), 0),
        (dict(objective="wake_sleep"), 0),
        (dict(objective="tvo"), 0),
        (dict(warm_up=0), 0),
        (dict(warm_up=9), 9),
        (dict(annealing="cyclical"), 150),
        (dict(annealing="cyclical", warm_up=20), 20),
        (dict(free_bits=0.25), 0),
    ],
)
def test_train_warms_up_by_itself_where_the_guide_follows_a_bound_from_below(settings, epochs):
    assert train.warm_up_of(train.Config(**settings)) == epochs


def test_train_keeps_units_awake_as_it_is_asked_to():
    def aided(steps: int = 10, **settings):
        config = train.Config(epochs=8, **settings)
        return repr(annealed(objective_of(config.objective, config), config, steps))

    assert aided() == "tempered(ELBO(num_particles=1), beta=linear(0, 1, steps=20))"
    cycles = "tempered(IWAE(num_particles=1), beta=cyclical(0, 1, steps=60, cycles=3, rise=0.5))"
    assert aided(objective="iwae", annealing="cyclical", cycles=3) == cycles
    assert aided(free_bits=0.25, free_groups=4) == "free_bits(ELBO(num_particles=1), nats=0.25, groups=4)"
    assert aided(objective="tvo") == "TVO(num_particles=1, intervals=5, first=0.05)"
    for settings, said in (
        ({"free_bits": 0.1, "warm_up": 3}, "warm_up must be left out with free_bits"),
        ({"free_bits": 0.1, "annealing": "cyclical"}, "annealing must be left out with free_bits"),
        ({"free_bits": 0.1, "objective": "iwae"}, "free_bits"),
        ({"objective": "tvo", "annealing": "cyclical"}, "cyclical over no epochs of warm-up for tvo; pass --warm-up"),
    ):
        with pytest.raises(ValueError, match=said):
            aided(**settings)


def test_train_refuses_grey_data_under_a_bernoulli(tmp_path):
    with pytest.raises(ValueError, match="bernoulli is of 0 and 1 alone.*grey levels: --binarize dynamic"):
        train.main(small(tmp_path, binarize="none"))


def test_train_keeps_an_earlier_run_unless_told(plain):
    folder, _ = plain
    with pytest.raises(ValueError, match="holds a run"):
        train.main(small(folder))


@pytest.mark.parametrize(
    "script",
    [
        "train",
        "compare_guides",
        "compare_bounds",
        "estimator_snr",
        "hierarchy",
        "priors",
        "imputation",
        "inpainting",
        "autoencoders",
        "unlearning",
        "semi_supervised",
        "evidence",
        "gaps",
        "rate_distortion",
    ],
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
    assert failed.stderr.startswith("error: name must be digits, mnist,") and failed.stderr.count("\n") == 1
    assert "got 'mnits': mnist is the nearest" in failed.stderr
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


@pytest.mark.parametrize("density", [False, True])
def test_bits_are_told_of_exact_probabilities_and_never_of_a_density(density):
    p = StandardNormal(2) if density else ChainRule(OrderedMADE(2, hidden=(4,)), Bits())
    found = evaluate(FullyVisible(p), FullyObserved(), torch.tensor([[0.0, 1.0], [1.0, 1.0]]), num_particles=1)
    table = summary(found, "log p(x)", 1, 0.0, {}, {})
    assert ("bits per number" in table.columns) is not density and ("of a density" in table.caption) is density
