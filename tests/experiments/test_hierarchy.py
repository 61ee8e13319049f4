"""The comparison of inference orders over depth, in tiny form; what is measured of layers against exact answers."""

from __future__ import annotations

import json

import matplotlib
import pyro
import pytest
import torch
from oracles import assert_close

from dlvm.experiments import hierarchy
from dlvm.experiments.data import Loader
from dlvm.experiments.figures import by_depth, layer_kl
from dlvm.experiments.hierarchy import ORDERS, Config, pair
from dlvm.experiments.measures.layer_contents import chain, layers_of
from dlvm.experiments.runs.restore import restore
from dlvm.inference import evaluate
from dlvm.inference.evaluation import active_units


def small(folder, **settings):
    common = dict(layers=(2,), sizes=(4, 3), hidden=(8, 6), encoder=(8,), epochs=1, looks=1, batch_size=200, warm_up=2)
    return Config(**common | dict(seeds=1, eval_particles=30, layer_particles=10, eval_data=12, out=folder) | settings)


def data():
    return Loader((torch.rand(40, 6, generator=torch.Generator().manual_seed(0)) < 0.5).float(), batch_size=15)


def on(order, depth=2):
    pyro.set_rng_seed(0)
    return pair(Config(sizes=(4, 3, 2), hidden=(8, 7, 6), encoder=(16,)), depth, order, data())


def rows(**changes):
    def row(order, layers, log_px, top):
        sites = [f"z{i + 1}" for i in range(layers)]
        kl, active = dict.fromkeys(sites, 2.0), dict.fromkeys(sites, 3)
        kl[sites[-1]], active[sites[-1]] = (-0.7, 0) if order == "bottom-up" else (1.1, top)
        sizes = [8, 6, 4][:layers]
        return dict(layers=layers, order=order, log_px=log_px, log_px_se=0.01, kl=kl, active=active, sizes=sizes)

    found = [row(*cell) for cell in (("ladder", 2, -20, 3), ("bottom-up", 2, -21, 1), ("ladder", 3, -22, 2))]
    return [r | changes for r in [*found, row("bottom-up", 3, -21.5, 1)]]


def texts(fig):
    return " ".join(text.get_text() for text in fig.findobj(matplotlib.text.Text)).replace("\n", " ")


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_layers_sum_to_the_rate(order):
    model, guide = on(order, depth=3)
    held = layers_of(model, guide, data(), num_particles=400)
    record = evaluate(model, guide, data(), num_particles=2000, seed=5)
    assert list(held.kl) == ["z1", "z2", "z3"]
    assert sum(held.kl.values()) == pytest.approx(record.rate, abs=0.03)
    if order != "joint":  # whose vector and its parts are one unit each in the record
        assert sum(held.active.values()) == pytest.approx(record.active_units, abs=1)


def test_kl_of_a_layer_is_the_closed_form_where_layers_are_alone():
    """One layer: KL(q(z1 | x) || N(0, I)) and the variance of loc over data need no particle."""
    model, guide = on("top_down", depth=1)
    with torch.no_grad():
        x = torch.cat([batch for (batch,) in data()])
        q = guide.posteriors[0](guide.features(x))
        exact = torch.distributions.kl_divergence(q, model.prior().expand(q.batch_shape)).mean()
    held = layers_of(model, guide, data(), num_particles=2)
    assert held.kl["z1"] == pytest.approx(exact.item(), rel=1e-5)
    steady = layers_of(model, guide, data(), num_particles=3000)
    loud = (q.mean.var(0, correction=0) > active_units.ACTIVE_VARIANCE).sum()
    assert steady.active["z1"] == loud


@pytest.mark.usefixtures("float64")
def test_chain_rule_by_conditional_gaussians():
    """The second part is log q(u2 | u1), by the formula of the conditional mean and covariance."""
    factor = torch.randn(4, 4).tril(-1) + torch.diag(torch.rand(4) + 0.5)
    q, u = torch.distributions.MultivariateNormal(torch.randn(4), scale_tril=factor), torch.randn(4)
    first, second = chain(q, u, [1, 3])
    cov, pull = q.covariance_matrix, q.covariance_matrix[1:, :1] / q.covariance_matrix[:1, :1]
    loc = q.loc[1:] + pull @ (u - q.loc)[:1]
    given = torch.distributions.MultivariateNormal(loc, cov[1:, 1:] - pull @ cov[:1, 1:])
    assert_close(second, given.log_prob(u[1:]), 1e-9)
    assert_close(first, torch.distributions.Normal(q.loc[0], cov[0, 0].sqrt()).log_prob(u[0]), 1e-9)


def test_units_that_follow_the_data_are_told_from_noise():
    """With the head at zero no unit follows the data; with one row of it set, one does."""
    model, guide = on("independent", depth=2)
    head = guide.posteriors[1].head  # of z1
    with torch.no_grad():
        for posterior in guide.posteriors:
            posterior.head.weight.zero_()
    assert layers_of(model, guide, data(), 500).active == {"z1": 0, "z2": 0}
    with torch.no_grad():
        head.weight[2] = 3.0
    assert layers_of(model, guide, data(), 500).active == {"z1": 1, "z2": 0}


@pytest.mark.slow
def test_hierarchy_in_tiny_form(tmp_path):
    found = hierarchy.main(small(tmp_path))
    assert {(row["layers"], row["order"]) for row in found} == {(2, label) for label in hierarchy.LABELS.values()}
    ways = {row["order"]: row["analytic"] for row in found}
    assert ways["top-down"] == ways["ladder (precision)"] == ["z1", "z2"]
    assert ways["bottom-up"] == ["z2"] and ways["joint full-rank"] == []
    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "metrics.jsonl", "result.json", "report.html", "depth.png", "layers.png"} <= names
    kept = json.loads((tmp_path / "result.json").read_text())["runs"]
    assert [run["log_px"] for run in kept] == [row["log_px"] for row in found]
    assert not any(row["warming"] for row in found)  # seven steps, of which two warm up
    model, guide = restore(tmp_path / "pairs" / "layers-2-order-ladder-precision-seed-0")
    assert guide.model is model and len(list((tmp_path / "pairs").iterdir())) == len(found)
    (row,) = (row for row in found if row["order"] == "ladder (precision)")
    test = hierarchy.splits(small(tmp_path)).test
    assert evaluate(model, guide, test, num_particles=30).log_px == row["log_px"]
    page = (tmp_path / "report.html").read_text()
    assert "ladder minus bottom-up" in page and "One seed each" in page


def test_verdict_is_what_the_numbers_say(tmp_path):
    """Means over seeds; twice the standard error of a difference: 2 sqrt(2 * 0.02 / 2) where seeds vary by 0.02."""
    common = dict(elbo=-23.0, rate=5.0, khat_bad=0.0, ms_per_step=1.0, steps=90, analytic=[], warming=False)
    labels = {"ladder": "ladder (precision)"}
    runs = [
        row | common | {"order": labels.get(row["order"], row["order"]), "log_px": row["log_px"] + shift}
        for row in rows()
        for shift in (-0.1, 0.1)
    ]
    config = small(tmp_path, seeds=2)
    said = hierarchy.verdict(hierarchy.means(runs), runs, config)
    assert "ladder (precision) with 2 (-20.00), bottom-up with 3 (-21.50)" in said
    assert "ladder minus bottom-up: +1.00 with 2, -0.50 with 3" in said
    assert "Differences below 0.28 nats are not told from zero" in said
    assert "From 2 to 3 layers log p(x) changes by: bottom-up -0.50, ladder (precision) -2.00" in said
    assert "from 0.0 (bottom-up) to 2.0 (ladder (precision)) active units of 4" in said
    assert "warm-up" not in said
    runs[0]["warming"] = True
    assert "ended before their warm-up of 2 steps did" in hierarchy.verdict(hierarchy.means(runs), runs, config)


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(layers=(2, 3)), r"layers must lie between 1 and 2, the number of sizes and hidden, got \(2, 3\)"),
        (dict(layers=(0,)), "layers must lie between 1 and 2"),
        (dict(orders=("ladder", "ladder")), "orders must name at least one, and none twice"),
        (dict(layer_particles=1), "layer_particles must be at least 2"),
        (dict(warm_up=400), "takes 400 steps, and only 7 are planned"),
        (dict(warm_up=-1), "warm_up must be at least 0, got -1"),
        (dict(epochs=None, seconds=0.0), "seconds must be positive, got 0.0"),
    ],
)
def test_mistakes_are_named_before_a_folder_is_made(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        hierarchy.main(small(tmp_path / "run", **settings))
    assert not (tmp_path / "run").exists()


def test_titles_are_what_the_numbers_say():
    said = texts(by_depth(rows()))
    assert "ladder reaches the highest log p(x), \N{MINUS SIGN}20.00 nats, with 2 layers" in said
    assert "with 3, bottom-up leads at \N{MINUS SIGN}21.50" in said
    assert "Of 3 layers, ladder puts more than 0.1 nats into 3, bottom-up into 2" in texts(layer_kl(rows()))
    assert "0/4" in texts(layer_kl(rows())) and "\N{MINUS SIGN}0.7" in texts(layer_kl(rows()))


def test_figures_refuse_rows_that_say_nothing():
    with pytest.raises(ValueError, match=r"rows\[0\]: expected the keys .* add sizes"):
        by_depth([{key: value for key, value in rows()[0].items() if key != "sizes"}])
    with pytest.raises(ValueError, match="expected one with finite numbers, got 4 without"):
        layer_kl(rows(log_px=float("nan")))
