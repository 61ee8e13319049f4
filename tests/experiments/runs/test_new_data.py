"""New rows for a run: whole numbers that were trained on under a density of real ones bind nobody to whole numbers."""

from __future__ import annotations

import json

import pytest
import torch

from dlvm.experiments.data import Loader
from dlvm.experiments.runs.new_data import keep_description, read_for


@pytest.mark.parametrize("likelihood, passes", [("normal", True), ("student_t", True), ("negative_binomial", False)])
def test_real_rows_go_with_whole_ones_under_a_density_and_not_under_counts(likelihood, passes, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    settings = {"model": "vae", "likelihood": likelihood, "guide": "diagonal", "binarize": "default"}
    (run / "config.json").write_text(json.dumps({"config": settings}))
    keep_description(run, Loader(torch.tensor([[1.0, 200.0], [0.0, 7.0]]), columns=("a", "b")))
    (tmp_path / "new.csv").write_text("a,b\n0.5,-3\n")
    if passes:
        assert read_for(run, tmp_path / "new.csv").x.tolist() == [[0.5, -3.0]]
    else:
        with pytest.raises(ValueError, match="must hold counts 0, 1, 2"):
            read_for(run, tmp_path / "new.csv")
