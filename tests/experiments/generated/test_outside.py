"""Words for objectives outside the bound: what they make, what does not go with them, and what a run says."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dlvm.experiments import train
from dlvm.experiments.generated.outside import OUTSIDE, WEIGHTS, Sizes, outside_of


@pytest.mark.parametrize("word", OUTSIDE)
def test_every_word_is_an_objective_that_bounds_nothing_and_is_of_the_width_of_what_it_judges(word):
    made = outside_of(word, Sizes(6, 2))
    assert made.bound.side == "neither"
    widths = {module.in_features for module in made.modules() if type(module).__name__ == "MLP"}
    assert widths == {"aae": {2}, "vae_gan": {6}, "ali": {8}}.get(word, set())
    if word in WEIGHTS:
        assert "weight=3" in repr(outside_of(word, Sizes(6, 2), 3.0))


def test_what_is_refused():
    with pytest.raises(ValueError, match="weight must be left out for ali"):
        outside_of("ali", Sizes(6, 2), 3.0)
    for options, said in (
        ({"objective": "aae", "estimator": "stl"}, "estimator must be total for aae, which is no bound"),
        ({"objective": "aae", "num_particles": 5}, "num_particles must be 1 for aae"),
        ({"objective": "mmd_vae", "warm_up": 3}, "warm_up must be 0 for mmd_vae"),
        ({"objective": "elbo", "weight": 3.0}, "weight is of objectives outside the bound, got elbo"),
    ):
        with pytest.raises(ValueError, match=said):
            train.maximised(train.Config(**options), None, None, None)


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
