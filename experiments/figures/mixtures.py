"""Mixtures: what each way of fitting reaches against passes over the data, and components as ellipses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse
from torch import Tensor

from dlvm.experiments.figures.style import DASHES, FAINT, INK, PALETTE, bare, colours, number, sheet, styled

COLUMNS = 3
CLOSE = 0.01  # nats per datum that count as having come to the best
LEAST = 1e-3  # nats per datum, the least that the logarithmic axis shows
Clusters = tuple[Tensor, Tensor, Tensor, float]  # weights (K,), means (K, 2), covariances (K, 2, 2), log p(x)


@styled
def distance_curves(histories: Mapping[str, Sequence[Sequence[tuple[float, float]]]], context: str = "") -> Figure:
    """How far log p(x) lies below the highest that any way comes to, against passes over the data.

    Args:
        histories: way of fitting -> one list of (passes, log p(x)) per seed, in nats per datum, from the first pass on.
        context: a few words on data and model, put below the title.

    Returns:
        The figure; both axes are logarithmic.

    Raises:
        ValueError: there is nothing to draw, or a value is not finite.
    """
    if not histories or not all(runs and all(runs) for runs in histories.values()):
        raise ValueError(
            "histories: expected (passes, log p(x)) of each way of fitting, got an empty list; leave it out"
        )
    curves = {name: [np.array(run, dtype=float) for run in runs] for name, runs in histories.items()}
    if not all(np.isfinite(run).all() for runs in curves.values() for run in runs):
        raise ValueError("histories: expected finite numbers, got NaN or infinite ones; leave out what failed")
    best = max(run[:, 1].max() for runs in curves.values() for run in runs)
    means = {name: np.mean([run[: min(map(len, runs))] for run in runs], 0) for name, runs in curves.items()}
    soon = {n: float(mean[best - mean[:, 1] < CLOSE, 0][0]) for n, mean in means.items() if best - mean[-1, 1] < CLOSE}
    title = f"None comes within {CLOSE} nats of the best run on average"
    if soon:
        first, *_, last = order = [min(soon, key=soon.__getitem__), max(soon, key=soon.__getitem__)]
        title = f"{first} comes within {CLOSE} nats of the best run after {soon[first]:g} passes"
        title += f", {last} after {soon[last]:g}" if len(set(order)) > 1 else ""
        title += f", {' and '.join(rest)} not at all" if (rest := [name for name in curves if name not in soon]) else ""
    tint, marks = colours(curves), dict(zip(curves, DASHES * len(curves), strict=False))
    legend = [Line2D([], [], color=tint[name], linestyle=marks[name], label=name) for name in curves]
    detail = "Exact log p(x) of the training data: a thin line per start, their mean in bold; further down is better."
    fig = sheet(4.2, title, detail, context, legend)
    ax = fig.subplots()
    for name, runs in curves.items():
        for run in runs:
            ax.plot(run[:, 0], _below(best, run[:, 1]), color=tint[name], linewidth=0.6, alpha=0.45)
        mean = means[name]
        ax.plot(mean[:, 0], _below(best, mean[:, 1]), color=tint[name], linestyle=marks[name], linewidth=2.2)
    ax.set(xscale="log", yscale="log", xlabel="passes over the data", ylabel="nats per datum below the best run")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:g}")
    ax.grid()
    return fig


def _below(best: float, values: np.ndarray) -> np.ndarray:
    return np.maximum(best - values, LEAST)


@styled
def ellipses(x: Tensor, found: Mapping[str, Clusters], context: str = "") -> Figure:
    """Data on the plane under the components that each way of fitting found.

    Args:
        x: shape (n, 2).
        found: way of fitting -> weights, means and covariances of its components, and its log p(x), nats per datum;
            one of the name "truth" is drawn black.
        context: a few words on the data, put below the title.

    Returns:
        The figure.

    Raises:
        ValueError: there is nothing to draw, or data or components do not lie on the plane.
    """
    if not found or x.dim() != 2 or x.shape[1] != 2 or any(loc.shape[-1] != 2 for _, loc, *_ in found.values()):
        raise ValueError(f"x and found: expected data and components on the plane, got data of shape {tuple(x.shape)}")
    values = {name: value for name, (*_, value) in found.items()}
    ways = [name for name in found if name != "truth"] or list(found)
    low, high = min(ways, key=values.__getitem__), max(ways, key=values.__getitem__)
    title = f"From {number(values[low])} nats per datum ({low}) to {number(values[high])} ({high})"
    detail = "Ellipses hold 39 % and 86 % of a component (one and two standard deviations); dots are their means."
    wide = min(COLUMNS, len(found))
    rows = -(-len(found) // wide)
    fig = sheet(3.0 * rows, title, detail, context)
    axes = fig.subplots(rows, wide, squeeze=False, sharex=True, sharey=True).ravel()
    for ax, (name, (*clusters, value)) in zip(axes, found.items(), strict=False):
        ax.scatter(*x.T.numpy(), s=6, color=FAINT, alpha=0.35, linewidths=0)
        for weight, loc, covariance in zip(*(part.detach() for part in clusters), strict=True):
            draw_ellipse(ax, weight.item(), loc, covariance, INK if name == "truth" else PALETTE[1])
        ax.set_title(f"{name}, {number(value)}")
        bare(ax)
        ax.set_aspect("equal")
    margin = 0.05 * (x.amax(0) - x.amin(0))
    axes[0].set(xlim=_range(x[:, 0], margin[0]), ylim=_range(x[:, 1], margin[1]))
    for ax in axes[len(found) :]:
        ax.set_visible(False)
    return fig


def _range(values: Tensor, margin: Tensor) -> tuple[float, float]:
    return (values.min() - margin).item(), (values.max() + margin).item()


def draw_ellipse(ax: Axes, weight: float, loc: Tensor, covariance: Tensor, colour: str) -> None:
    """A component, of which little is to be seen where its weight is small."""
    sizes, directions = torch.linalg.eigh(covariance.double())
    angle = torch.rad2deg(torch.atan2(directions[1, 1], directions[0, 1])).item()
    strength = min(1.0, 0.15 + 4 * weight)
    middle = loc[0].item(), loc[1].item()
    for deviations in (1, 2):
        height, width = (2 * deviations * sizes.clamp_min(0).sqrt()).tolist()
        around = Ellipse(middle, width, height, angle=angle)
        around.set(facecolor="none", edgecolor=colour, linewidth=1.4, alpha=strength)
        ax.add_patch(around)
    ax.scatter(*middle, s=14, color=colour, alpha=strength, linewidths=0)
