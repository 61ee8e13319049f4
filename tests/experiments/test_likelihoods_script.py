"""The comparison of likelihoods in tiny form, its noise by hand, and its figure."""

from __future__ import annotations

import json
from types import SimpleNamespace

import matplotlib
import pytest
import torch
from torch import nn

from dlvm.distributions import ConstantScaleNormal, FixedScale
from dlvm.experiments import likelihoods
from dlvm.experiments.figures import decoders
from dlvm.experiments.runs.restore import restore
from dlvm.experiments.setups.vae import VAESetup
from dlvm.guides import Diagonal, latents
from dlvm.models import VAE, Dequantised
from dlvm.nets import MLP

SETUP = VAESetup(2, (8,))


def small(folder, **settings):
    common = dict(likelihoods=("normal_fixed", "grey_levels"), setup=SETUP, seeds=1, epochs=1, warm_up=0)
    return likelihoods.Config(**common | dict(batch_size=300, eval_particles=20, eval_data=20, out=folder) | settings)


@pytest.mark.slow
def test_bits_are_of_levels_whatever_the_likelihood_and_pairs_are_kept(tmp_path):
    rows = likelihoods.main(small(tmp_path / "run"))
    assert [row["likelihood"] for row in rows] == ["normal_fixed", "grey_levels"]
    assert not any(row["density"] for row in rows)
    for row in rows:  # no worse than twice what equally likely levels take
        assert 0 < row["bits_per_dim"] < 2 * torch.tensor(17.0).log2()
    assert {p.name for p in (tmp_path / "run").glob("*.png")} >= {"decoders.png", "learning_curves.png"}
    model, guide = restore(tmp_path / "run" / "pairs" / "likelihood-normal-fixed-seed-0")
    assert isinstance(model, Dequantised) and model.levels == 17
    kept = json.loads((tmp_path / "run" / "result.json").read_text())["runs"]
    assert [row["bits_per_dim"] for row in kept] == [row["bits_per_dim"] for row in rows]


def test_noise_is_that_of_the_decoder_and_errors_are_its_means():
    """Means of 1/2 with an sd of 0.1, of data that lie 0.3 away."""
    decoder = nn.Linear(2, 5)
    nn.init.zeros_(decoder.weight), nn.init.constant_(decoder.bias, 0.5)
    model = VAE(2, ConstantScaleNormal(decoder, FixedScale(0.1))).requires_grad_(False).eval()
    x = 0.5 + 0.3 * (2 * (torch.rand(300, 5) > 0.5).float() - 1)
    guide = Diagonal(latents(model, x), MLP(5, 4))
    plain = likelihoods.noise_of(model, guide, x)
    assert plain["decoder_sd"] == pytest.approx(0.1, rel=0.03) and plain["residual"] == pytest.approx(0.3, rel=0.03)
    assert plain["sharpness"] < 0.06
    fine = likelihoods.noise_of(Dequantised(model, 256), guide, x)
    assert fine["decoder_sd"] == pytest.approx(0.1, rel=0.03)


def test_what_cannot_be_compared_is_refused_before_a_folder_is_made(tmp_path):
    for settings, words in (
        ({"likelihoods": ()}, "likelihoods must name at least one"),
        ({"likelihoods": ("normal", "poisson")}, "likelihood poisson is of counts"),
        ({"warm_up": 1}, "warm_up .--warm-up. must be from 0 to below epochs=1"),
        ({"data": "sky"}, "grey levels lie between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=words):
            likelihoods.main(small(tmp_path / "run", **settings))
    assert not (tmp_path / "run").exists()


def test_the_figure_says_what_needs_the_fewest_bits():
    x = torch.rand(3, 4)
    numbers = {"bits_per_dim": 2.0, "decoder_sd": 0.1, "residual": 0.2, "sharpness": 0.9}
    rows = [{"label": w, "strips": [x] * 4, **numbers, "bits_per_dim": b} for w, b in (("a", 2.0), ("b", 1.0))]
    fig = decoders(x, rows, (2, 2), "made up")
    said = " ".join(text.get_text() for text in fig.findobj(matplotlib.text.Text))
    assert "b needs the fewest bits, 1.000" in said.replace("\n", " ") and "a: 2.00 bits" in said
    with pytest.raises(ValueError, match="got none"):
        decoders(x, [], (2, 2))


def test_the_verdict_names_the_rate_of_the_best_beside_that_of_the_blurriest_once():
    def means(bits, sharpness, rate):
        return SimpleNamespace(mean={"bits_per_dim": bits, "sharpness": sharpness, "rate": rate}.__getitem__)

    clear, blurry = means(2.0, 0.9, 7.0), means(4.0, 0.1, 0.5)
    assert likelihoods.verdict({"a": clear, "b": blurry}).endswith("at a rate of 0.5 nats; a has 7.0.")
    assert likelihoods.verdict({"b": blurry, "a": clear}).endswith("at a rate of 0.5 nats.")
