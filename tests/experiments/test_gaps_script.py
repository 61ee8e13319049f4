"""The division of the inference gap by guide, in tiny form, and what its words and figures say."""

from __future__ import annotations

import json

import matplotlib
import pytest
import torch

from dlvm.evidence import estimate
from dlvm.experiments import gaps
from dlvm.experiments.figures.gaps import gap_bars, gap_scatter, gaps_by_encoder

TINY = dict(
    z_dim=2, hidden=(8,), epochs=2, eval_data=12, steps=40, num_particles=60, chains=2, temperatures=8, batch_size=400
)


def row(guide="diagonal", family=0.2, encoder=0.5, **changes):
    numbers = {
        "approximation": family,
        "amortisation": encoder,
        "total": family + encoder,
        "elbo": -25.0 + family,
        "log_px": -24.0,
    }
    row = {"part": "guides", "label": guide, "guide": guide, "converged": True, "next": "a larger encoder"} | numbers
    return row | {f"{name}_se": 0.01 for name in numbers} | changes


def texts(fig):
    return " ".join(text.get_text() for text in fig.findobj(matplotlib.text.Text))


def check_sum(row, prefix=""):
    parts = row[f"{prefix}approximation"] + row[f"{prefix}amortisation"]
    assert parts == pytest.approx(row[f"{prefix}total"], abs=1e-9)
    assert row[f"{prefix}log_px"] - row[f"{prefix}elbo"] == pytest.approx(row[f"{prefix}total"], abs=1e-9)


@pytest.mark.slow
def test_the_parts_add_up_and_are_those_of_the_files(tmp_path):
    config = gaps.Config.of(**TINY, guides=("diagonal", "full_rank"), encoders=(2, 8), out=tmp_path)
    rows = gaps.main(config)
    assert [(r["part"], r["label"]) for r in rows] == [
        ("guides", "diagonal"), ("guides", "full_rank"), ("encoders", "2"), ("encoders", "8"),
    ]  # fmt: skip
    for found in rows:
        check_sum(found)
        check_sum(found, "train_")
    for found in rows[:2]:  # quadrature
        check_sum(found, "exact_")
        assert found["exact_approximation"] >= -1e-6 and found["exact_amortisation"] >= -1e-6
        assert abs(found["elbo"] - found["exact_elbo"]) < 5 * found["elbo_se"] + 1e-3
        assert found["best"] < found["exact_best"] + 5 * found["best_se"]
    assert "richer" in rows[0] and "richer" not in rows[1]  # full_rank is no richer than itself
    assert rows[0]["exact_richer"] >= rows[0]["exact_best"]
    kept = json.loads((tmp_path / "result.json").read_text())
    assert [r["total"] for r in kept["rows"]] == [r["total"] for r in rows]
    report = (tmp_path / "report.html").read_text()
    for found in rows:
        assert f"{found['amortisation']:.3f} ± {found['amortisation_se']:.3f}" in report
    files = {path.name for path in tmp_path.iterdir()}
    assert {"gaps.png", "per_datum.png", "encoders.png", "metrics.jsonl", "config.json"} <= files
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


@pytest.mark.slow
def test_what_is_done_before_an_interrupt_is_reported(tmp_path, monkeypatch, capsys):
    kept = gaps.trained

    def trained(config, word, encoder, data):
        if word == "full_rank":
            raise KeyboardInterrupt
        return kept(config, word, encoder, data)

    monkeypatch.setattr(gaps, "trained", trained)
    guides = ("diagonal", "full_rank", "iaf")
    rows = gaps.main(gaps.Config.of(**TINY | {"z_dim": 3}, richer="none", guides=guides, encoders=(), out=tmp_path))
    assert [r["guide"] for r in rows] == ["diagonal"] and "exact_total" not in rows[0]
    assert "interrupted: what is done is reported" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "result.json").read_text())["rows"]) == 1


def test_log_px_is_by_importance_sampling_unless_annealing_is_clearly_higher(monkeypatch):
    log_w = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    low = estimate.Estimate.of_weights("IS", log_w)
    for shift, method in ((1.0, "AIS"), (0.001, "IS"), (-1.0, "IS")):
        high = estimate.Estimate.of_weights("AIS", log_w + shift)
        monkeypatch.setattr(gaps, "annealed", lambda *args, high=high, **kwargs: high)
        monkeypatch.setattr(gaps, "importance", lambda *args, **kwargs: low)
        assert gaps.evidence_of(gaps.Config(), None, None, torch.zeros(4, 1)).method == method


def test_verdict_tells_the_family_from_the_encoder():
    said = gaps.verdict([row(), row("full_rank", 0.5, 0.1), row("iaf", 0.2, 0.21)])
    assert "diagonal: the encoder (0.20 by the family, 0.50 by the encoder, of 0.70 nats)" in said
    assert "full_rank: the family (0.50" in said and "iaf: family and encoder alike" in said
    assert "Next, for full_rank, whose ELBO is highest: a larger encoder." in said
    assert "diagonal: not settled" in gaps.verdict([row(converged=False)])
    said = gaps.verdict([row(train_amortisation=0.1)])
    assert "generalises badly (amortisation 0.10 on training data, 0.50 on test data)" in said
    assert "generalises badly" not in gaps.verdict([row(train_amortisation=0.4)])


def test_verdict_says_what_larger_encoders_do():
    def line(label, encoder):
        return row(encoder=encoder, part="encoders", label=label, train_amortisation=encoder / 2)

    said = gaps.verdict([line("25", 0.5), line("400", 0.3)])
    assert "From encoder 25 to 400 the amortisation gap shrinks, from 0.50 to 0.30 nats" in said
    assert "from 0.25 to 0.15 on training data" in said
    assert "gap stays the same" in gaps.verdict([line("25", 0.5), line("400", 0.51)])
    assert "gap grows" in gaps.verdict([line("25", 0.5), line("400", 0.6)])
    assert "which larger encoders did not make less of" in gaps.verdict([row(), line("25", 0.5), line("400", 0.6)])
    assert "Next, for diagonal, whose ELBO is highest: a larger encoder." in gaps.verdict(
        [row(), line("25", 0.6), line("400", 0.5)]
    )


def test_mistakes_are_named_before_a_folder_is_made(tmp_path):
    for settings, message in (
        (dict(guides=()), "guides must be different words, at least one"),
        (dict(guides=("iaf", "iaf")), "guides must be different words"),
        (dict(encoders=(10, 10)), "encoders must be different widths"),
        (dict(hidden=()), "hidden must hold a layer"),
        (dict(steps=0), "steps must be at least 1, got 0"),
        (dict(chains=1), "chains must be at least 2, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            gaps.main(gaps.Config.of(**dict(out=tmp_path / "run") | settings))
    assert not (tmp_path / "run").exists()


def test_bars_have_the_lengths_of_the_gaps():
    fig = gap_bars([row(), row("full_rank", 0.1, 0.15)])
    bars = [(bar.get_x(), bar.get_width()) for bar in fig.axes[0].patches]
    assert [x for bar in bars for x in bar] == pytest.approx([0.0, 0.2, 0.2, 0.5, 0.0, 0.1, 0.1, 0.15])
    assert "full_rank has the smallest inference gap: 0.25 nats" in texts(fig) and "0.70" in texts(fig)
    with pytest.raises(ValueError, match=r"rows\[0\]: expected the keys .*; add total"):
        gap_bars([{k: v for k, v in row().items() if k != "total"}])
    with pytest.raises(ValueError, match="at least one, got none"):
        gap_bars([])


def test_scatter_counts_for_whom_the_encoder_is_worse():
    values = {"diagonal": (torch.zeros(4), torch.tensor([1.0, 1.0, 1.0, -1.0])), "iaf": (torch.ones(2), torch.zeros(2))}
    fig = gap_scatter(values)
    assert "With diagonal, the encoder loses more than the family for 75 % of the data" in texts(fig)
    assert "iaf\nencoder worse for 0 %" in texts(fig)
    with pytest.raises(ValueError, match="at least one guide"):
        gap_scatter({})


def test_no_figure_clips_a_text():
    rows = [row(f"guide of a long name, {i}", train_amortisation=0.1, train_amortisation_se=0.01) for i in range(6)]
    context = (
        "the 8x8 digits, 8 latent dimensions, a diagonal guide, and a context that needs a second line of the page"
    )
    values = {one["label"]: (torch.rand(9), torch.rand(9)) for one in rows[:3]}
    for fig in (gap_bars(rows, context), gaps_by_encoder(rows[:5], context), gap_scatter(values, context)):
        fig.draw_without_rendering()
        box, (width, height) = fig.get_tightbbox(), fig.get_size_inches()
        assert box.x0 > -0.01 and box.y0 > -0.01 and box.x1 < width + 0.01 and box.y1 < height + 0.01
    assert len(gaps_by_encoder(rows).axes[0].lines) > len(gaps_by_encoder([row(), row()]).axes[0].lines)
