"""Methods of filling holes against closed forms, and the script that compares them in tiny form."""

from __future__ import annotations

import json
import math

import matplotlib
import pyro.distributions as dist
import pytest
import torch

from dlvm.experiments import imputation
from dlvm.experiments.figures import imputation_errors
from dlvm.experiments.measures.imputers import Linear, by_components, by_means, em, hidden

TORCH = torch.Generator().manual_seed(0)
WEIGHT = torch.randn(6, 2, generator=TORCH, dtype=torch.float64)
X = torch.randn(400, 2, generator=TORCH, dtype=torch.float64) @ WEIGHT.T
X = X + 0.5 * torch.randn(400, 6, generator=TORCH, dtype=torch.float64)
HOLED = X.masked_fill(torch.rand(400, 6, generator=TORCH) < 0.3, torch.nan)
HOLED[0] = torch.nan


def test_linear_components_are_exact_with_holes():
    """Log p and the conditional mean of each datum, by the dense Gaussian of what is there."""
    model = Linear(WEIGHT, torch.arange(6.0).double(), torch.tensor(0.25).double())
    cov = WEIGHT @ WEIGHT.T + 0.25 * torch.eye(6)
    log_p, filled = model.posterior(HOLED)[2], model.filled(HOLED)
    assert log_p[0].abs() < 1e-9 and torch.allclose(filled[0], model.loc)
    for row, found, value in zip(HOLED[1:20], filled[1:20], log_p[1:20], strict=True):
        there = ~row.isnan()
        p = dist.MultivariateNormal(model.loc[there], cov[there][:, there])
        gain = torch.linalg.solve(cov[there][:, there], cov[there][:, ~there]).T
        wanted = model.loc[~there] + gain @ (row - model.loc)[there]
        assert value.item() == pytest.approx(p.log_prob(row[there]).item())
        assert torch.allclose(found[~there], wanted) and torch.equal(found[there], row[there])


def test_em_never_falls_and_finds_the_components():
    bounds, models = [], []
    for model, bound in em(HOLED, 2):
        bounds.append(bound), models.append(model)
    assert all(b >= a - 1e-9 for a, b in zip(bounds, bounds[1:], strict=False)) and len(bounds) > 5
    truth = Linear(WEIGHT, torch.zeros(6).double(), torch.tensor(0.25).double())
    assert bounds[-1] > truth.posterior(HOLED)[2].mean() and 0.2 < models[-1].variance < 0.3
    missing = HOLED.isnan()
    best, found, mean = (
        (filled - X)[missing].square().mean()
        for filled in (truth.filled(HOLED), by_components(HOLED, HOLED, 2, 0), by_means(HOLED, HOLED))
    )
    assert best < found < 1.1 * best < 0.6 * mean


def test_numbers_are_hidden_as_told():
    x = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(1))
    x[:5000, 2] = torch.nan
    gone = hidden(x, "random", 0.3, 3.0, 0)
    assert abs(gone[5000:].double().mean() - 0.3) < 0.01 and not gone[:5000, 2].any()
    gone = hidden(x, "not_at_random", 0.3, 3.0, 0)
    assert not gone[:, 1::2].any() and not gone[:5000, 2].any()
    near = x[:, 0].abs() < 0.05
    assert abs(gone[near, 0].double().mean() - 0.3) < 0.05
    assert gone[x[:, 0] > 1, 0].double().mean() > 0.8 and gone[x[:, 0] < -1, 0].double().mean() < 0.05


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    lines = [",".join("abcdef")] + [",".join("NA" if math.isnan(v) else f"{v:.4f}" for v in row) for row in HOLED[1:]]
    path.write_text("\n".join(lines))
    return path


@pytest.mark.slow
def test_it_compares_methods_and_the_linear_one_fills_linear_data_best(table, tmp_path):
    small = dict(data=str(table), missing=("NA",), seeds=1, epochs=2, eval_particles=50, z_dim=2, hidden=(8,))
    rows = imputation.main(imputation.Config(**small, out=tmp_path / "run"))
    rmse = {(row["holes"], row["way"]): row["rmse"] for row in rows}
    assert len(rmse) == 10 and all(0 < value < 3 for value in rmse.values())
    assert rmse["random", "ppca"] < 0.8 * rmse["random", "mean"]
    assert rmse["random", "iterative"] < 0.9 * rmse["random", "mean"]
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert "random: PPCA, exact errs least" in found["verdict"] and (tmp_path / "run" / "errors.png").exists()


def test_errors_are_told_with_their_noise_and_drawn():
    rows = [
        {"holes": "random", "way": way, "label": way, "seed": s, "rmse": r + 0.1 * s, "bias": 0.0, "seconds": 1.0}
        for way, r in (("mean", 1.0), ("ppca", 0.5), ("miwae", 0.52))
        for s in range(2)
    ]
    assert imputation.errors_of(rows)["random", "ppca"] == pytest.approx((0.55, 0.05))
    assert "PPCA, exact errs least, 0.550 sd; then MIWAE, 0.570, which seeds do not tell" in imputation.verdict(rows)
    fig = imputation_errors(rows)
    assert "random: ppca errs least" in " ".join(t.get_text() for t in fig.findobj(matplotlib.text.Text))
    with pytest.raises(ValueError, match="got none"):
        imputation_errors([])


def test_what_cannot_be_filled_is_refused_before_a_folder_is_made(table, tmp_path):
    for settings, words in (({"share": 1.0}, "share must be between 0 and 1"), ({"z_dim": 6}, "z_dim must be below")):
        config = imputation.Config(data=str(table), missing=("NA",), **settings, out=tmp_path / "run")
        with pytest.raises(ValueError, match=words):
            imputation.main(config)
    assert not (tmp_path / "run").exists()
