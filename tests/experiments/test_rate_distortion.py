"""Rate and distortion over beta in tiny form: what falls, what adds up, and what words and figures say."""

from __future__ import annotations

import dataclasses
import json
import math

import matplotlib
import pytest
import torch

from dlvm.evidence.estimate import Estimate
from dlvm.experiments import rate_distortion
from dlvm.experiments.data import Loader, Splits
from dlvm.experiments.figures.rate_distortion import rate_distortion_plane, unit_rates


def rows():
    values = ((0.1, 12.0, 14.0, -25.0), (1.0, 6.0, 18.0, -23.5), (10.0, 0.0, 26.0, -26.0))
    return [
        {"decoder": name, "beta": beta, "rate": rate, "distortion": distortion, "elbo": -(rate + distortion),
         "log_px": log_px - shift, "log_px_se": 0.01, "unit_kl": [rate, rate / 1e4], "khat_bad": 0.0,
         "marginal_kl": 0.3, "by": "weights"}
        for name, shift in (("mlp", 0.0), ("linear", 1.0))
        for beta, rate, distortion, log_px in values
    ]  # fmt: skip


def texts(fig):
    return " ".join(text.get_text() for text in fig.findobj(matplotlib.text.Text))


@pytest.mark.slow
def test_the_rate_falls_with_beta_and_everything_adds_up(tmp_path):
    config = rate_distortion.Config.of(
        betas=(0.1, 10.0, 1.0), decoders=("mlp",), z_dim=3, hidden=(16,), epochs=25, batch_size=100, lr=5e-3,
        eval_particles=60, eval_data=60, out=tmp_path,
    )  # fmt: skip
    found = rate_distortion.main(config)
    assert [row["beta"] for row in found] == [0.1, 1.0, 10.0]
    rates, distortions = [row["rate"] for row in found], [row["distortion"] for row in found]
    assert rates == sorted(rates, reverse=True) and distortions == sorted(distortions)
    assert rates[0] > rates[-1] + 1
    for row in found:
        assert row["elbo"] == pytest.approx(-(row["rate"] + row["distortion"]), abs=1e-6)
        assert row["elbo"] < row["log_px"]
        assert sum(row["unit_kl"]) == pytest.approx(row["rate"], abs=1e-6)
        noise = 5 * math.hypot(row["information_se"], row["marginal_kl_se"], row["rate_se"])
        assert row["information"] + row["marginal_kl"] == pytest.approx(row["rate"], abs=noise + 1e-3)
        assert row["information"] < math.log(60) + 5 * row["information_se"]
    kept = json.loads((tmp_path / "result.json").read_text())
    assert [row["rate"] for row in kept["rows"]] == rates
    report = (tmp_path / "report.html").read_text()
    assert all(f"{row['distortion']:.2f} ± {row['distortion_se']:.2f}" in report for row in found)
    assert {"rate_distortion.png", "units.png", "metrics.jsonl"} <= {path.name for path in tmp_path.iterdir()}


def test_without_code_is_the_cross_entropy_of_the_mean():
    x = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    data = Splits(Loader(x), Loader(x), Loader(x[:2]))
    first, second = 3.5 / 4, 1.5 / 4  # half a datum of each kind beside the three
    expected = -(2 * math.log(first) + math.log(1 - second) + math.log(second)) / 2
    assert rate_distortion.without_code(data) == pytest.approx(expected, rel=1e-5)


def test_verdict_names_the_best_beta_the_dead_units_and_the_next_step():
    said = rate_distortion.verdict(rows())
    assert "The highest log p(x), -23.50 ± 0.01 nats per datum, is reached with beta 1 and the mlp decoder" in said
    assert "mlp decoder: from beta 0.1 to 10 the rate goes from 12.0 to 0.0 nats" in said
    assert "units below 0.01 nats, of 2: 1 at beta 0.1, 1 at beta 1, 2 at beta 10." in said
    assert "Next: betas closer to 1, or a richer decoder." in said
    far = [row | {"marginal_kl": 2.0} for row in rows()]
    assert "a learned prior: at the best beta q(z) is 2.0 nats from p(z)" in rate_distortion.verdict(far)
    assert "Next: larger betas" in rate_distortion.verdict(rows()[:2])
    heavy = [row | {"khat_bad": 0.5 if row["beta"] == 0.1 else math.nan} for row in rows()]
    assert "k-hat exceeds 0.7 for many data: beta 0.1 (mlp), beta 0.1 (linear)." in rate_distortion.verdict(heavy)
    assert "k-hat" not in said


def test_annealing_takes_over_where_weights_cannot_be_trusted(monkeypatch):
    log_w = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    good, config = Estimate.of_weights("weighed", log_w), rate_distortion.Config.of()
    bad = dataclasses.replace(good, khat=torch.ones(4))
    for weighed, shift, method in ((good, 1.0, "weights"), (bad, 1.0, "AIS"), (bad, -1.0, "weights")):
        other = Estimate.of_weights("annealed", log_w + shift)
        monkeypatch.setattr(rate_distortion, "defensive", lambda *args, weighed=weighed, **kwargs: weighed)
        monkeypatch.setattr(rate_distortion, "annealed", lambda *args, other=other, **kwargs: other)
        assert good.khat_bad == 0 and bad.khat_bad == 1
        chosen, found = rate_distortion.evidence_of(config, None, None, None)
        assert chosen == method and found is (other if method == "AIS" else weighed)


def test_what_is_done_before_an_interrupt_is_reported(tmp_path, monkeypatch, capsys):
    done = iter(rows())

    def measured(config, decoder, beta, data):
        if beta == 10.0:
            raise KeyboardInterrupt
        extra = {f"{name}_se": 0.0 for name in ("rate", "distortion", "elbo", "information", "marginal_kl")}
        return (
            next(done)
            | extra
            | {"information": 0.1, "active_units": 1, "num_data": 9, "complete": True, "seconds": 0.0}
        )

    monkeypatch.setattr(rate_distortion, "measured", measured)
    found = rate_distortion.main(rate_distortion.Config.of(betas=(10.0, 1.0, 0.1), decoders=("mlp",), out=tmp_path))
    assert [row["beta"] for row in found] == [0.1, 1.0]
    assert "interrupted: what is done is reported" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "result.json").read_text())["rows"]) == 2


def test_mistakes_are_named_before_a_folder_is_made(tmp_path):
    for settings, message in (
        (dict(betas=()), "betas must be different, at least one"),
        (dict(betas=(1.0, 1.0)), "betas must be different"),
        (dict(betas=(0.0, 1.0)), "betas must be positive, got"),
        (dict(epochs=0), "epochs must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            rate_distortion.main(rate_distortion.Config.of(**dict(out=tmp_path / "run") | settings))
    assert not (tmp_path / "run").exists()


def test_the_plane_has_a_curve_per_decoder_and_the_line_of_the_best_elbo():
    fig = rate_distortion_plane(rows(), 26.5)
    curves = [[list(values) for values in line.get_data()] for line in fig.axes[0].lines]
    assert [[12.0, 6.0, 0.0], [14.0, 18.0, 26.0]] == curves[0] == curves[1]
    assert [[0, 24.0], [24.0, 0]] in curves and [[0, 23.5], [23.5, 0]] in curves and [[0], [26.5]] in curves
    assert "beta 1 with the mlp decoder has the best ELBO, −24.00 nats" in texts(fig)
    with pytest.raises(ValueError, match=r"rows\[0\]: expected the keys .*; add elbo"):
        rate_distortion_plane([{k: v for k, v in rows()[0].items() if k != "elbo"}], 26.5)
    with pytest.raises(ValueError, match="expected finite numbers"):
        rate_distortion_plane([rows()[0] | {"rate": math.nan}], 26.5)


def test_units_are_stacked_to_the_rate():
    fig = unit_rates(rows())
    for ax in fig.axes:
        tops = [max(p.get_y() + p.get_height() for p in ax.patches if round(p.get_x() + 0.31) == x) for x in range(3)]
        assert tops == pytest.approx([12.0012, 6.0006, 0.0])
    assert "With beta 10 and the mlp decoder, 2 of 2 units carry nothing" in texts(fig)
    assert "0 of 2" in texts(fig) and "1 of 2" in texts(fig)


def test_no_figure_clips_a_text():
    context = (
        "the 8x8 digits, a diagonal guide, 8 latent dimensions, and a context that needs a second line of the page"
    )
    for fig in (rate_distortion_plane(rows(), 26.5, context), unit_rates(rows(), context)):
        fig.draw_without_rendering()
        box, (width, height) = fig.get_tightbbox(), fig.get_size_inches()
        assert box.x0 > -0.01 and box.y0 > -0.01 and box.x1 < width + 0.01 and box.y1 < height + 0.01
