"""The comparison of priors in tiny form, its differences by hand, and its figures."""

from __future__ import annotations

import json

import matplotlib
import pytest
import torch

from dlvm.distributions import VampPrior
from dlvm.experiments import priors
from dlvm.experiments.figures import gains, pseudo_inputs
from dlvm.experiments.runs.restore import restore
from dlvm.experiments.setups.vae import VAESetup
from dlvm.experiments.sweeps.cells import Done
from dlvm.inference import log_px

SETUP = VAESetup(2, (8,), components=5)


def small(folder, **settings):
    common = dict(priors=("vamp", "real_nvp"), setup=SETUP, seeds=1, epochs=1, warm_up=0, batch_size=300)
    return priors.Config(**common | dict(eval_particles=30, eval_data=20, out=folder) | settings)


def texts(fig):
    return " ".join(text.get_text() for text in fig.findobj(matplotlib.text.Text)).replace("\n", " ")


@pytest.mark.slow
def test_it_trains_each_prior_beside_the_standard_normal_and_keeps_the_pairs(tmp_path):
    rows = priors.main(small(tmp_path / "run"))
    assert [row["prior"] for row in rows] == ["standard", "vamp", "real_nvp"]
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert found["gains"]["vamp"]["value"] == pytest.approx(rows[1]["log_px"] - rows[0]["log_px"])
    assert {p.name for p in (tmp_path / "run").glob("*.png")} >= {"gains.png", "pseudo_inputs.png", "samples.png"}
    model, guide = restore(tmp_path / "run" / "pairs" / "prior-vamp-seed-0")
    assert isinstance(model.prior, VampPrior) and model.prior.posterior._read[0] is guide.encoder
    test = priors.checked(small(tmp_path)).test
    again = log_px(model, guide, next(iter(test))[0], num_particles=500).log_px
    assert again.mean().item() == pytest.approx(rows[1]["log_px"], abs=0.1)


def test_gains_are_paired_by_seed_and_datum():
    """Seeds far apart, and data further, with one difference in all of them: it is known exactly."""
    torch.manual_seed(0)
    base = 10 * torch.randn(2, 1) + torch.randn(1, 50)
    done = [Done({"prior": "standard", "seed": s}, {"log_px_values": base[s]}) for s in range(2)]
    done += [Done({"prior": "vamp", "seed": s}, {"log_px_values": base[s] + 0.5}) for s in range(2)]
    gain, seeds = priors.gains_of(done)["vamp"]
    assert (gain.low, gain.value, gain.high) == pytest.approx((0.5, 0.5, 0.5), abs=1e-4)
    assert seeds == pytest.approx([0.5, 0.5], abs=1e-5)
    assert priors.verdict(done).startswith("vamp is worth most: 0.500")
    noisy = priors.paired(torch.tensor([[0.0, 2.0], [1.0, 5.0]]))[0]
    assert noisy.high - noisy.value == pytest.approx(2 * (4.5 / 2 + 2.0 / 2) ** 0.5)


def test_what_cannot_be_compared_is_refused_before_a_folder_is_made(tmp_path):
    for settings, words in (
        ({"priors": ("standard",)}, "priors must name one beside standard"),
        ({"setup": VAESetup(2, (8,), prior="vamp")}, "prior is what --priors compares here"),
        ({"warm_up": 1}, "warm_up .--warm-up. must be from 0 to below epochs=1"),
    ):
        with pytest.raises(ValueError, match=words):
            priors.main(small(tmp_path / "run", **settings))
    assert not (tmp_path / "run").exists()


def test_figures_say_who_gains_and_refuse_nothing_to_draw():
    rows = [{"prior": p, "gain": g, "low": g - 0.1, "high": g + 0.1, "seeds": [g]} for p, g in (("a", 1), ("b", -1))]
    assert "a gains 1.00 nats" in texts(gains(rows, "standard"))
    assert "No prior is surely better than standard" in texts(gains(rows[1:], "standard"))
    assert "made up" in texts(pseudo_inputs({"learned": torch.rand(5, 4)}, (2, 2)))
    for draw in (lambda: gains([], "standard"), lambda: pseudo_inputs({})):
        with pytest.raises(ValueError, match="got none"):
            draw()
