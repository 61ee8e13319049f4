"""Words for objectives outside the bound: what they make, what does not go with them, and what a run says."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from pyro.distributions import constraints

from dlvm.experiments import train, use
from dlvm.experiments.generated.outside import OUTSIDE, WEIGHTS, Sizes, outside_of
from dlvm.experiments.options.command_line import start
from dlvm.experiments.runs.outcome import rebuilt_by
from dlvm.experiments.runs.restore import restore
from dlvm.guides import Latent, Point
from dlvm.inference import Reconstruction
from dlvm.nets import MLP


@pytest.mark.parametrize("word", OUTSIDE)
def test_every_word_is_an_objective_that_bounds_nothing_and_is_of_the_width_of_what_it_judges(word):
    made = outside_of(word, Sizes(6, 2))
    assert made.bound.side == "neither"
    widths = {module.in_features for module in made.modules() if type(module).__name__ == "MLP"}
    assert widths == {"aae": {2}, "vae_gan": {6}, "ali": {8}}.get(word, set())
    if word in WEIGHTS:
        assert "weight=3" in repr(outside_of(word, Sizes(6, 2), 3.0))


POINTS = Point({"z": Latent(torch.Size([2]), constraints.real_vector)}, MLP(6, 8))


def test_what_is_refused():
    for word, whole in (("ali", "the game"), ("ae", r"E log p\(x \| z\)")):
        with pytest.raises(ValueError, match=f"weight must be left out for {word}, where {whole}"):
            outside_of(word, Sizes(6, 2), 3.0)
    for options, said in (
        ({"objective": "aae", "estimator": "stl"}, "estimator must be total for aae, which is no bound"),
        ({"objective": "aae", "num_particles": 5}, "num_particles must be 1 for aae"),
        ({"objective": "mmd_vae", "warm_up": 3}, "warm_up must be 0 for mmd_vae"),
        ({"objective": "ae", "free_bits": 0.1}, "free_bits must be None for ae"),
        ({"objective": "elbo", "weight": 3.0}, "weight is of objectives outside the bound, got elbo"),
    ):
        with pytest.raises(ValueError, match=said):
            train.maximised(train.Config(**options), None, torch.nn.Identity(), None)
    for objective, said in (
        ("iwae", "take --objective ae, cae, rae or wae, with --pat"),
        ("aae", "take --objective wae"),
    ):
        with pytest.raises(ValueError, match=f"guide point gives points, without a density, and {objective}.*{said}"):
            train.maximised(train.Config(objective=objective, guide="point"), None, POINTS, None)


@pytest.mark.slow
def test_a_run_says_that_it_was_trained_outside_the_bound(tmp_path):
    x = (np.random.default_rng(0).random((120, 4)) > 0.5).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    small = {"data": str(tmp_path / "x.npz"), "hidden": (8,), "z_dim": 2, "epochs": 2, "eval_particles": 10}
    with pytest.raises(ValueError, match="patience"):
        train.main(train.Config.of(objective="aae", out=tmp_path / "run", **small))
    assert not (tmp_path / "run").exists()
    train.main(train.Config.of(objective="aae", patience=None, out=tmp_path / "run", **small))
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert found["verdict"].startswith("Trained outside the bound, by aae: log p(x) and the ELBO are those of p(x, z)")


@pytest.mark.slow
@pytest.mark.parametrize("objective, guide", [("ae", "point"), ("ae", "denoising"), ("rae", "point"), ("wae", "point")])
def test_a_run_of_points_says_that_it_has_no_bound_and_shows_none(tmp_path, objective, guide):
    x = (np.random.default_rng(0).random((120, 4)) > 0.5).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    small = {"data": str(tmp_path / "x.npz"), "hidden": (8,), "z_dim": 2, "epochs": 2, "out": tmp_path / "run"}
    settings = train.Config.of(objective=objective, guide=guide, patience=None, **small)
    assert train.main(settings) is None
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert not {"log_px", "elbo", "rate"} & found.keys()
    assert found["verdict"].startswith(f"Trained outside the bound, by {objective}: the guide gives points")
    model, back = restore(tmp_path / "run")
    test = train.Recipe.by(settings).splits().test
    assert rebuilt_by(model, back, test) == pytest.approx(
        (found["reconstruction"], found["reconstruction_se"]), rel=1e-5
    )
    loss = sum(Reconstruction().loss(model.eval(), back.eval(), *batch) for batch in test)
    assert found["reconstruction"] == pytest.approx(-loss / test.num_data, rel=1e-5)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "E log p(x | z)" in page and "of which there is none" in page
    assert "ELBO</th>" not in page and "validation bound" not in page
    with pytest.raises(SystemExit, match="log p.x. cannot be had from it"):
        main_of(use, tmp_path / "run", "score")


def main_of(script, *args) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["use", *map(str, args)])
        start(script.main, script.Config, "use")
