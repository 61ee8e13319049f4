"""Figures: the numbers that they state and draw, and the input that they refuse."""

from __future__ import annotations

import math

import matplotlib
import pytest
import torch
from matplotlib.collections import PathCollection

from dlvm.experiments.figures import (
    bounds,
    columns,
    latent_space,
    learning_curves,
    posteriors,
    reconstructions,
    samples,
)
from dlvm.experiments.figures.images import mosaic
from dlvm.experiments.figures.posteriors import levels
from dlvm.experiments.figures.style import _columns, number


@pytest.fixture(autouse=True)
def settings():
    with matplotlib.rc_context():
        yield


def texts(fig):
    return " ".join(text.get_text() for text in fig.findobj(matplotlib.text.Text))


def title(fig):
    return fig.texts[0].get_text()


def outside(fig):
    """Whether anything drawn, or the legend, reaches beyond the page."""
    fig.draw_without_rendering()
    width, height = fig.get_size_inches()
    drawn = [
        fig.get_tightbbox(),
        *(key.get_window_extent().transformed(fig.dpi_scale_trans.inverted()) for key in fig.legends),
    ]
    return any(b.x0 < -0.01 or b.x1 > width + 0.01 or b.y0 < -0.01 or b.y1 > height + 0.01 for b in drawn)


def history(*values):
    return [{"epoch": i + 1, "train": v + 1, "valid": v} for i, v in enumerate(values)]


def gaussian_grid(covariance, points=161, half_width=5.0):
    axis = torch.linspace(-half_width, half_width, points, dtype=torch.float64)
    z = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    normal = torch.distributions.MultivariateNormal(torch.zeros(2).double(), torch.as_tensor(covariance).double())
    return axis, normal.log_prob(z)


def all_figures():
    torch.manual_seed(0)
    x = torch.rand(5, 12)
    axis, log_q = gaussian_grid([[1.0, 0.3], [0.3, 0.5]], points=31)
    grids = log_q.expand(5, 31, 31)
    guides = ("Diagonal", "FullRank", "IAF")
    objectives = ("ELBO", "analytic-KL ELBO", "IWAE")
    curves = {
        (g, o): [history(-30.0, -20.0 - i), history(-31.0, -20.5)] for i, g in enumerate(guides) for o in objectives
    }
    rows = [
        {"guide": g, "objective": o, "elbo": -20.0 - s, "log_px": -19.0, "log_px_se": 0.02, "seed": s}
        for g in guides for o in objectives for s in (0, 1)
    ]  # fmt: skip
    means = {f"{g} · {o}": torch.rand(5, 12) for g in guides for o in objectives}
    context = "Test set of the 8×8 digits; a model with z_dim = 2 and $200 of hidden units."
    return {
        "curves": learning_curves(curves, context=context),
        "flat": learning_curves({f"{g} · {o}": runs for (g, o), runs in curves.items()}, context=context),
        "bounds": bounds(rows, context=context),
        "reconstructions": reconstructions(x, means, (3, 4), context),
        "vectors": reconstructions(x, means, None, context),
        "samples": samples(means, (3, 2, 2), context),
        "lines": samples(means, None, context),
        "posteriors": posteriors(x, axis, grids, dict.fromkeys(guides, grids), None, (3, 4), context),
        "tabular": posteriors(
            x, (axis, axis.expand(5, -1)), grids, {"IAF": grids}, {"IAF": torch.zeros(5)}, None, context
        ),
        "latent": latent_space(torch.randn(50, 2), torch.arange(50) % 10, context),
        "plain": latent_space(torch.randn(50, 2), context=context),
    }


@pytest.mark.slow
def test_no_figure_clips_a_text_or_changes_the_settings_of_matplotlib():
    matplotlib.rcParams.update({"axes.facecolor": "red", "backend": "svg"})
    before = dict(matplotlib.rcParams)
    assert [name for name, fig in all_figures().items() if outside(fig)] == []
    assert dict(matplotlib.rcParams) == before
    assert bounds([{"guide": "q", "objective": "ELBO", "elbo": 0, "log_px": 1}]).axes[0].get_facecolor() == (
        1,
        1,
        1,
        1,
    )


def test_curves_draw_the_median_and_the_range_of_seeds():
    fig = learning_curves({("IAF", "ELBO"): [history(-9, -5), history(-8, -3), history(-4, -1)]}, clip=0)
    (ax,) = fig.axes
    assert ax.lines[0].get_ydata().tolist() == [-8, -3]
    band = ax.collections[0].get_paths()[0].vertices
    assert {tuple(v) for v in band} >= {(1, -9), (1, -4), (2, -5), (2, -1)}
    assert "−3.00 nats per datum" in title(fig) and ax.get_ylabel() == "validation bound (nats per datum)"


def test_curves_clip_the_first_epochs_but_never_the_best_of_a_curve():
    good, bad = history(-1e6, -900.0, *[-20.0 + 0.01 * i for i in range(48)]), history(-60.0)
    fig = learning_curves({"good": [good], "bad": [bad]}, clip=0.1)
    low, high = fig.axes[0].get_ylim()
    assert -70 < low < -60 and -19.6 < high < -15
    assert "lowest 4% of the values lie below the axis" in texts(fig)
    assert "below the axis" not in texts(learning_curves({"good": [good]}, clip=0))


def test_curves_skip_what_is_not_finite_and_tell_seeds_that_stopped_early():
    runs = [history(-9, math.nan, -5), [{"epoch": 1, "valid": None}, {"epoch": 2, "valid": -7.0}]]
    fig = learning_curves({"IAF": runs}, clip=0)
    assert fig.axes[0].lines[0].get_ydata().tolist() == [-9, -7, -5]


def test_curves_get_a_panel_per_objective_and_name_who_leads():
    curves = {("A", "ELBO"): [history(-2)], ("B", "ELBO"): [history(-1)], ("A", "IWAE"): [history(-3)]}
    fig = learning_curves({**curves, ("B", "IWAE"): [history(-2.5)]})
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["ELBO", "IWAE"]
    assert title(fig) == "B reaches the highest validation bound under every objective"
    fig = learning_curves({**curves, ("B", "IWAE"): [history(-4)]}, value="train")
    assert "1 of 2 objectives" in title(fig) and "training bound" in fig.axes[0].get_ylabel()


def test_bounds_average_seeds_and_state_the_smallest_gap():
    rows = [
        {"guide": "IAF", "objective": "ELBO", "elbo": -11.0, "log_px": -10.0, "log_px_se": 0.3},
        {"guide": "IAF", "objective": "ELBO", "elbo": -12.0, "log_px": -10.5, "log_px_se": 0.4},
        {"guide": "Diagonal", "objective": "ELBO", "elbo": -15.0, "log_px": -10.0},
        {"guide": "Diagonal", "objective": "IWAE", "elbo": math.nan, "log_px": -10.0},
    ]
    fig = bounds(rows)
    assert title(fig) == "IAF trained with ELBO leaves the smallest gap: 1.25 nats"
    assert title(bounds(rows, message="as found elsewhere")) == "as found elsewhere"
    assert "not finite: 1 of 4 runs" in texts(fig) and "gap 5.00" in texts(fig)
    (ax,) = fig.axes
    assert ax.lines[0].get_xdata().tolist() == [-11.5, -10.25]
    segment = ax.collections[0].get_segments()[0]
    assert segment[1, 0] - segment[0, 0] == pytest.approx(2 * 2 * 0.25)  # 2 SE each side, SE = hypot(.3, .4) / 2


def test_reconstruction_errors_are_mean_absolute_differences():
    x = torch.zeros(3, 4)
    fig = reconstructions(x, {"near": x + 0.125, "far": x + 0.5}, (2, 2))
    assert "near" in title(fig) and "0.125" in title(fig) and "0.500" in texts(fig)


def test_a_mosaic_keeps_every_pixel_in_place():
    values = torch.arange(12.0).reshape(3, 4) / 11
    picture = mosaic(values, (2, 2), 2, 0.0, 1.0)
    height, width = picture.shape[0] // 2, picture.shape[1] // 2
    for i in range(3):
        tile = picture[i // 2 * height :, i % 2 * width :][:height, :width, 0]
        corners = tile[[[height // 4], [3 * height // 4]], [[width // 4, 3 * width // 4]]]
        assert torch.equal(corners, values[i].reshape(2, 2))
    assert (picture[height:, width:] == 1).all()  # the place of the missing fourth image is white


def test_a_colour_image_keeps_its_channels():
    picture = mosaic(torch.tensor([[1.0, 0.0, 0.5]]), (3, 1, 1), 1, 0.0, 1.0)
    assert picture[len(picture) // 2, len(picture) // 2].tolist() == [1.0, 0.0, 0.5]


@pytest.mark.parametrize("mass", [0.5, 0.95])
def test_highest_density_levels_agree_with_the_gaussian_ones(mass):
    covariance = torch.tensor([[1.0, 0.6], [0.6, 0.8]], dtype=torch.float64)
    _, log_q = gaussian_grid(covariance, points=401)
    # A two-dimensional Gaussian holds 1 - exp(-c / 2) within squared Mahalanobis distance c.
    exact = (1 - mass) / (2 * math.pi * covariance.det().sqrt())
    assert levels(log_q.exp().numpy(), [mass])[0] == pytest.approx(float(exact), rel=0.02)


def test_posteriors_put_z1_on_the_horizontal_axis_and_ignore_a_constant():
    axis, log_p = gaussian_grid([[2.0, 0.0], [0.0, 0.05]])
    x = torch.rand(1, 4)
    shifted = posteriors(x, axis, log_p[None] - 700.0, {"IAF": log_p[None]}, {"IAF": torch.tensor([0.25])}, (2, 2))
    fills, outlines = ([ax.collections[k].get_datalim(ax.transData) for ax in shifted.axes[1:]] for k in (0, 1))
    for box in fills + outlines:
        assert box.width > 4 * box.height
    assert [box.bounds for box in outlines][0] == pytest.approx(outlines[1].bounds, abs=1e-3)
    assert title(shifted).startswith("The guide is 0.25 nats from the true posterior, KL(q || p)")
    assert shifted.axes[1].get_xlabel() == "z₁"


def test_a_posterior_on_one_point_of_the_grid_still_shows():
    spike = torch.full((1, 5, 5), -math.inf)
    spike[0, 2, 2] = 0.0
    fig = posteriors(X[:1], AXIS, spike, {"q": spike})
    boxes = [drawn.get_datalim(fig.axes[2].transData) for drawn in fig.axes[2].collections]
    assert [box.width for box in boxes] == pytest.approx([0.5, 0.5])  # points are 0.5 apart


def test_long_names_of_columns_stay_on_the_sheet_and_off_one_another():
    names = [f"measured_concentration_of_{word}" for word in ("iron", "zinc", "lead", "gold")]
    fig = columns(torch.rand(9, 4), torch.rand(9, 4), names)
    fig.draw_without_rendering()
    boxes = [ax.title.get_window_extent() for ax in fig.axes]
    assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))
    assert boxes[-1].x1 <= fig.bbox.x1


def test_posteriors_of_a_row_with_holes_leave_gaps_in_its_line():
    x = X.clone()
    x[0, 1] = math.nan
    line = posteriors(x, AXIS, GRID, {"q": GRID}).axes[0]
    assert torch.as_tensor(line.lines[0].get_ydata()).isnan().tolist() == x[0].isnan().tolist()
    assert line.get_ylim() == pytest.approx((x[~x.isnan()].min().item(), x[~x.isnan()].max().item()))
    with pytest.raises(ValueError, match="expected finite values, got 1 others"):
        posteriors(x.nan_to_num(math.inf), AXIS, GRID, {"q": GRID})


def test_posteriors_give_each_datum_its_own_window():
    axis, log_p = gaussian_grid([[1.0, 0.0], [0.0, 1.0]], points=41)
    windows = (torch.stack([axis, axis + 10]), torch.stack([axis, axis - 10]))
    fig = posteriors(torch.rand(2, 4), windows, log_p.expand(2, 41, 41), {"IAF": log_p.expand(2, 41, 41)})
    assert fig.axes[4].get_xlim() == (5, 15) and fig.axes[4].get_ylim() == (-15, -5)


def test_latent_space_counts_neighbours_of_the_same_class():
    z = torch.tensor([[0.0, 0.0], [0.1, 0.0], [5.0, 5.0], [5.1, 5.0], [5.2, 5.0]])
    fig = latent_space(z, torch.tensor([0, 0, 1, 1, 0]), class_names=("B", "NK"))
    assert {"B", "NK"} <= {text.get_text() for text in fig.axes[0].texts}
    assert title(fig).startswith("80%")  # the last point's neighbour is of the other class
    marks = [c for c in fig.axes[0].collections if isinstance(c, PathCollection)]
    assert [len(c.get_offsets()) for c in marks] == [3, 2]


def test_neighbours_do_not_depend_on_the_chunks():
    torch.manual_seed(0)
    z, labels = torch.randn(1300, 2), torch.randint(0, 2, (1300,))
    distance = torch.cdist(z.double(), z.double()).fill_diagonal_(math.inf)
    share = (labels[distance.argmin(1)] == labels).double().mean()
    assert title(latent_space(z, labels)).startswith(f"{share:.0%}")


def test_numbers_carry_a_true_minus_and_a_digit_more_when_small():
    assert (number(-97.104), number(0.0123), number(0.1)) == ("−97.10", "0.012", "0.10")


def test_a_legend_takes_as_many_columns_as_fit():
    assert (_columns(["ELBO"] * 3, 112), _columns(["x" * 60] * 2, 112), _columns([], 112)) == (3, 1, 1)


AXIS, GRID = torch.linspace(-1, 1, 5), torch.zeros(2, 5, 5)
X = torch.rand(2, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: learning_curves({}), "histories: expected records with a finite 'valid'"),
        (lambda: learning_curves({"a": [history(1)], ("b", "c"): [history(1)]}), "histories: .* got both"),
        (
            lambda: learning_curves({"a": [history(1)]}, clip=1.0),
            r"clip: expected a fraction in \[0, 1\), got 1.0",
        ),
        (
            lambda: bounds([{"guide": "IAF", "objective": "ELBO", "elbo": 1.0}]),
            r"rows\[0\]: .* log_px is missing",
        ),
        (lambda: bounds([]), "rows: expected one with finite elbo .* got 0 without"),
        (lambda: reconstructions(X, {}), "reconstructions: expected at least one label"),
        (
            lambda: reconstructions(X, {"IAF": X[:1]}),
            r"reconstructions\['IAF'\]: expected .*\(2, 4\).* got \(1, 4\)",
        ),
        (lambda: reconstructions(X, {"IAF": X}, (3, 3)), r"x: expected 9 values .*\(3, 3\), got 4"),
        (lambda: samples({"IAF": X * math.nan}), r"images\['IAF'\]: expected finite values, got 8"),
        (lambda: samples({"IAF": X}, (2, 2, 1)), "image_shape: expected .* 1 or 3 channels"),
        (lambda: samples({"IAF": X[0]}), r"images\['IAF'\]: expected shape \(n, x_dim\)"),
        (lambda: posteriors(X, AXIS, GRID, {}), "guides: expected at least one label"),
        (lambda: posteriors(X, AXIS, GRID[:1], {"q": GRID}), r"true_log_density: expected shape \(2, 5, 5\)"),
        (lambda: posteriors(X, AXIS, GRID, {"q": GRID * math.nan}), r"guides\['q'\]: .* got NaN or none"),
        (
            lambda: posteriors(X, AXIS.expand(3, 5), GRID, {"q": GRID}),
            r"grid: expected shape \(G,\) or \(2, G\)",
        ),
        (
            lambda: posteriors(X, AXIS, GRID, {"q": GRID}, {"p": X[:, 0]}),
            r"kl\['p'\]: expected .* among \['q'\]",
        ),
        (lambda: latent_space(torch.rand(5, 3)), r"z_mean: expected finite \(N, 2\) .* got \(5, 3\)"),
        (lambda: latent_space(torch.rand(5, 2), torch.arange(4)), r"labels: expected shape \(5,\)"),
    ],
)
def test_input_that_cannot_be_drawn_is_refused_by_name(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
