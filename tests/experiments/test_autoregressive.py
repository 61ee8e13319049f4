"""The script of autoregressive models in tiny form: what is exact, what z says, and what is refused."""

from __future__ import annotations

import json

import pytest

from dlvm.experiments import autoregressive
from dlvm.experiments.autoregressive import Config, checked, fastest, verdict

ROWS = [
    {"model": "VAE", "log_px": -24.0, "ms_draw": 0.1},
    {"model": "PixelCNN", "log_px": -20.0, "ms_draw": 3.0},
]
FIELDS = [{"field": 4, "rate": 0.04, "log_px": -20.1}, {"field": 0, "rate": 7.2, "log_px": -24.3}]


@pytest.mark.slow
def test_the_tables_hold_what_was_measured(tmp_path):
    config = Config(
        models=("vae", "made", "pixelcnn", "realnvp"), fields=(0,), z_dim=2, hidden=(64,), channels=4, gated=1,
        receptive_field=2, warm_up=1, epochs=2, batch_size=200, eval_particles=20, eval_data=50, out=tmp_path,
    )  # fmt: skip
    rows = autoregressive.main(config)
    assert [row["model"] for row in rows] == ["VAE", "MADE", "PixelCNN", "RealNVP"]
    for row in rows:
        assert row["ms_density"] > 0 and row["ms_draw"] > 0 and 0 <= row["accuracy"] <= 1
        assert row["latent"] == (row["rate"] > 0)
        assert row["log_px"] >= row["elbo"] if row["estimated"] else row["log_px"] == row["elbo"]
    kept = json.loads((tmp_path / "result.json").read_text())
    assert kept["fields"][0]["field"] == 0 and kept["rows"][1]["log_px"] == rows[1]["log_px"]
    assert {"draws.png", "receptive_fields.png", "report.html"} <= {path.name for path in tmp_path.iterdir()}


def test_the_verdict_names_the_best_the_fastest_and_what_is_left_to_z():
    said = verdict(ROWS, FIELDS)
    assert "The highest log p(x), -20.00 nats per datum, is PixelCNN's." in said
    assert "VAE draws fastest, 30 times as fast as PixelCNN." in said
    assert (
        "With a receptive field of 0 pixels z says 7.2 nats, with 4 0.0; log p(x) goes from -24.30 to -20.10." in said
    )


@pytest.mark.parametrize(
    "options, words",
    [
        ({"models": ("vae", "vae")}, "models must be different"),
        ({"fields": (1, 1)}, "fields must be different"),
        ({"models": (), "fields": ()}, "must name something to train"),
        ({"models": ("vea",)}, "models must be among vae, pixel_vae"),
        ({"fields": (-1,)}, "fields must be at least 0, got -1"),
        ({"epochs": 2}, "warm_up .--warm-up. must be from 0 to below epochs=2, got 5"),
    ],
)
def test_what_cannot_be_compared_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        checked(Config(**options))


def test_the_fastest_call_is_in_milliseconds_and_the_first_does_not_count():
    calls = []
    assert 0 <= fastest(lambda: calls.append(1), times=2) < 1000 and len(calls) == 3
