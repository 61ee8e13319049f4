"""log p(x) against seconds of training: one panel per objective, the others behind it in grey."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dlvm.experiments.figures.style import PALETTE, number, sheet, styled

COLUMNS = 4
GREY = "#d0d0d0"
BELOW = {"color": PALETTE[0], "size": 9}
Checks = Sequence[Mapping[str, float]]


@styled
def timed_curves(
    histories: Mapping[str, Sequence[Checks]],
    context: str = "",
    clock: str = "seconds",
    clip: float = 0.15,
    detail: str = "Estimates from the same few importance samples for all; the best look of a run is what is kept.",
    kind: str = "objective",
) -> Figure:
    """The validation log p(x) against time, a small panel per objective; all share their axes.

    Args:
        histories: objective -> one list of records per seed, each with ``clock`` and ``"log_px"`` in nats per datum.
        context: a few words on data, model and time, put below the title.
        clock: the key of the horizontal axis, which is its label as well.
        clip: the fraction of lowest values, those of the first looks, that may fall below the axis.
        detail: how log p(x) was had, put below the title.
        kind: what a panel is one of, in the legend.

    Returns:
        The figure.

    Raises:
        ValueError: if no record holds a finite ``log_px``, or if ``clip`` lies outside [0, 1).
    """
    if not 0 <= clip < 1:
        raise ValueError(f"clip: expected a fraction in [0, 1), got {clip}; use 0 to show every value")
    curves = {name: [curve for run in runs if len(curve := _curve(run, clock))] for name, runs in histories.items()}
    curves = {name: runs for name, runs in curves.items() if runs}
    if not curves:
        raise ValueError(f"histories: expected records with {clock!r} and a finite 'log_px', got none; check the runs")
    pooled = np.concatenate([run[:, 1] for runs in curves.values() for run in runs])
    high, low = pooled.max(), np.quantile(pooled, clip)
    low = max(low, high - 4 * (high - np.median(pooled))) if high > np.median(pooled) else high - 0.5
    margin = max(0.06 * (high - low), 1e-3 * abs(high))

    names = list(curves)
    rows = -(-len(names) // COLUMNS)
    legend = [
        Line2D([], [], color=PALETTE[0], label=f"this {kind}, a line per seed"),
        Line2D([], [], color=GREY, label="all others"),
    ]
    if hidden := float((pooled < low - margin).mean()):
        detail += f" {hidden:.0%} of the values lie below the axis."
    fig = sheet(1.65 * rows + 0.3, _message(curves, clock), detail, context, legend)
    axes = fig.subplots(rows, min(COLUMNS, len(names)), sharex=True, sharey=True, squeeze=False).ravel()
    for ax, name in zip(axes, names, strict=False):
        for other in names:
            for run in curves[other] if other != name else []:
                ax.plot(*run.T, color=GREY, linewidth=0.8, zorder=1)
        for run in curves[name]:
            ax.plot(*run.T, color=PALETTE[0], linewidth=1.5, zorder=2)
        if (peak := max(run[:, 1].max() for run in curves[name])) < low - margin:
            ax.text(0.5, 0.06, f"below: {number(peak, 1)} at best", transform=ax.transAxes, ha="center", **BELOW)
        ax.set_title(name)
        ax.grid(axis="y")
    axes[0].set_ylim(low - margin, high + margin)
    for ax in axes[len(names) :]:
        ax.set_visible(False)
    for ax in axes[max(0, len(names) - COLUMNS) : len(names)]:
        ax.tick_params(labelbottom=True)
    fig.supxlabel(f"{clock} of training" if clock == "seconds" else clock, size=10)
    fig.supylabel("validation log p(x), nats per datum", size=10)
    return fig


def _curve(run: Checks, clock: str) -> np.ndarray:
    """Times and values, (looks, 2), where both are finite."""
    points = np.array([(record[clock], record["log_px"]) for record in run], dtype=float).reshape(-1, 2)
    return points[np.isfinite(points).all(1)]


def _message(curves: Mapping[str, Sequence[np.ndarray]], clock: str) -> str:
    """Who comes first to within a tenth of a nat of the best of all that anyone reaches."""
    peaks = {name: float(np.mean([run[:, 1].max() for run in runs])) for name, runs in curves.items()}
    goal = max(peaks.values()) - 0.1
    when = {
        name: float(np.mean([run[run[:, 1] >= min(goal, run[:, 1].max()), 0][0] for run in runs]))
        for name, runs in curves.items()
        if peaks[name] >= goal
    }
    first = min(when, key=when.__getitem__)
    return f"{first} is the first to come within 0.1 nats of the best: after {number(when[first], 1)} {clock}"
