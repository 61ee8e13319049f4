"""A finished run of a model of sequences in use: tables with a line for each step, as long as each sequence is."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch

from dlvm.experiments import use
from dlvm.experiments.data import from_file
from dlvm.experiments.runs.new_data import keep_description
from dlvm.experiments.runs.recipe import Recipe
from dlvm.experiments.runs.restore import keep, restore

LINES = [f"w{k},{5 * t},{k % 3 + 0.1 * t:.2f},{k % 2 - 0.2 * t:.2f}" for k in range(20) for t in range(k % 4 + 1)]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """What a run leaves of a model that is not trained."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "walks.csv").write_text("walk,minute,a,b\n" + "\n".join(LINES))
    settings = {"model": "linear_gaussian_ssm", "guide": "own", "z_dim": 2, "data": str(folder / "walks.csv")}
    settings |= {"binarize": "default", "sequence_column": "walk", "time_column": "minute"}
    recipe = Recipe.of(settings)
    train = recipe.splits().train
    pyro.set_rng_seed(0)
    keep(folder, *recipe.pair(train), train.x[0].numel())
    keep_description(folder, train)
    (folder / "config.json").write_text(json.dumps({"config": settings}))
    lines = ["b,minute,walk,a", *(f"{0.3 * t},{5 * t},new,{0.1 * t}" for t in range(6)), "1,0,short,2"]
    (folder / "new.csv").write_text("\n".join(lines))
    return folder


def table(run: Path, call: str, data: bool = True, **options) -> list[dict[str, str]]:
    out = run / f"{call}.csv"
    use.main(use.Config(run, call, run / "new.csv" if data else None, out=out, overwrite=True, **options))
    with out.open() as file:
        return list(csv.DictReader(file))


def test_codes_and_reconstructions_have_a_line_for_each_step_of_the_file(run):
    keys = [("new", str(5 * t)) for t in range(6)] + [("short", "0")]
    model, _ = restore(run)
    x = torch.stack([torch.tensor([0.1 * t, 0.3 * t]) for t in range(6)])[None]
    codes = table(run, "encode")
    assert [(row["walk"], row["minute"]) for row in codes] == keys
    found = torch.tensor([[float(row[f"z_{i}"]) for i in (0, 1)] for row in codes[:6]])
    torch.testing.assert_close(found, model.posterior(x).mean[0], atol=1e-5, rtol=1e-5)
    spread = torch.tensor([[float(row[f"z_{i}_sd"]) for i in (0, 1)] for row in codes[:6]])
    torch.testing.assert_close(spread, model.posterior(x).variance[0].sqrt(), atol=1e-5, rtol=1e-5)
    rebuilt = table(run, "reconstruct", num_particles=3)
    assert [(row["walk"], row["minute"]) for row in rebuilt] == keys and set(rebuilt[0]) == {"walk", "minute", "a", "b"}


def test_scores_are_those_of_each_sequence_alone_and_are_told_per_time_step(run, caplog):
    with caplog.at_level("INFO"):
        scores = table(run, "score", num_particles=2)
    model, _ = restore(run)
    x = torch.stack([torch.tensor([0.1 * t, 0.3 * t]) for t in range(6)])[None]
    alone = [model.log_px(x).item(), model.log_px(torch.tensor([[[2.0, 1.0]]])).item()]
    assert [row["walk"] for row in scores] == ["new", "short"]
    np.testing.assert_allclose([float(row["log_px"]) for row in scores], alone, rtol=1e-4)
    assert f"{sum(alone) / 7:.3f} per time step" in caplog.text


def test_draws_are_as_long_as_sequences_of_training_or_as_asked_for(run):
    steps = [int(row["step"]) for row in table(run, "generate", data=False, n=200)]
    counts = np.bincount(steps)
    assert counts[0] == 200 and len(counts) == 4 and (np.abs(counts - [200, 150, 100, 50]) < 40).all()
    assert [row["step"] for row in table(run, "generate", data=False, n=2, length=3)] == list("012012")
    with pytest.raises(ValueError, match="length .--length. must be at least 1, got 0"):
        table(run, "generate", data=False, length=0)


def test_a_way_leads_between_sequences_of_as_many_steps_alone(run):
    assert len(table(run, "interpolate", rows=("new", "0"), steps=3)) == 3 * 6
    with pytest.raises(ValueError, match="rows .--rows. must be two sequences of as many steps, got 6 and 1"):
        table(run, "interpolate", rows=("new", "short"))


def test_arrays_are_padded_and_say_their_lengths(run):
    use.main(use.Config(run, "reconstruct", run / "new.csv", out=run / "x.npz", overwrite=True, num_particles=2))
    with np.load(run / "x.npz") as found:
        assert found["x"].shape == (2, 6, 2) and found["lengths"].tolist() == [6, 1] and not found["x"][1, 1:].any()
    train = from_file(run / "walks.csv", sequence_column="walk", time_column="minute").train
    assert dict(json.loads((run / "data.json").read_text())["lengths"]) == {
        length: int((train["lengths"] == length).sum()) for length in range(1, 5)
    }


def test_text_is_written_as_it_is_read_by_the_alphabet_of_training(tmp_path):
    (tmp_path / "x.txt").write_text("anna\nbob\n" * 10)
    settings = {"model": "sentence_vae", "guide": "diagonal", "z_dim": 2, "width": 4, "data": str(tmp_path / "x.txt")}
    recipe = Recipe.of(settings | {"binarize": "default", "lines": True})
    train = recipe.splits().train
    pyro.set_rng_seed(0)
    keep(tmp_path, *recipe.pair(train), train.x[0].numel())
    keep_description(tmp_path, train)
    (tmp_path / "config.json").write_text(json.dumps({"config": settings | {"binarize": "default", "lines": True}}))
    use.main(use.Config(tmp_path, "generate", n=30, out=tmp_path / "draws.csv"))
    texts = [line.strip('"') for line in (tmp_path / "draws.csv").read_text().splitlines()]
    assert texts[0] == "text" and len(texts) == 31 and set("".join(texts[1:])) <= set("anbo")
    assert max(map(len, texts[1:])) <= 5 < 2 * len(set(texts))
    (tmp_path / "new.txt").write_text("nab\nzoe\n")
    with pytest.raises(ValueError, match="new.txt, line 2: 'z' at place 1 is not in the alphabet"):
        use.main(use.Config(tmp_path, "score", tmp_path / "new.txt"))
