"""What each objective reaches, what its step costs, and how far its own bound is from log p(x)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dlvm.experiments.figures.style import FAINT, INK, PALETTE, Row, number, sheet, styled

REQUIRED = ("objective", "elbo", "log_px", "bound", "lower", "ms_per_step", "steps")
ROW = 0.33  # inches
BLUE, RED, GREEN = PALETTE[:3]


@dataclass(frozen=True)
class _Line:
    """One objective: means over seeds in nats per datum, log p(x) of every seed."""

    objective: str
    seeds: list[float]
    se: float
    elbo: float
    bound: float
    lower: bool
    ms: float
    steps: float

    @property
    def log_px(self) -> float:
        return fmean(self.seeds)


@styled
def reached(rows: Sequence[Row], context: str = "") -> Figure:
    """log p(x) by objective, best first, every seed a dot; beside it the milliseconds of a step.

    Args:
        rows: one mapping per trained model, with ``objective``, ``elbo``, ``log_px``, ``bound`` (its own), ``lower``
            (whether that is a lower bound), ``ms_per_step``, ``steps`` and, if known, ``log_px_se``; nats per datum.
            Rows of one objective are seeds.
        context: a few words on data, model and time, put below the title.

    Returns:
        The figure.

    Raises:
        ValueError: if a row lacks a key, or if there is no finite row.
    """
    lines = _lines(rows)
    best = lines[0]
    legend = [
        Line2D([], [], marker="o", color=BLUE, linestyle="", markersize=7, label="mean over seeds ± 2 SE of sampling"),
        Line2D([], [], marker=".", color=FAINT, linestyle="", markersize=6, label="one seed"),
        Line2D([], [], color=GREEN, linewidth=6, alpha=0.6, label="time of a step; right of it the steps made"),
    ]
    title = f"{best.objective} reaches the highest log p(x): {number(best.log_px)} nats per datum"
    fig = sheet(0.75 + ROW * len(lines), title, _detail(lines), context, legend)
    left, right = fig.subplots(1, 2, sharey=True, width_ratios=(3, 1.15))
    floor = _rows(left, lines, [line.seeds for line in lines])
    for y, line in enumerate(lines):
        if line.log_px < floor:
            _off_scale(left, y, line.log_px, BLUE)
            continue
        left.plot(line.seeds, [y + 0.25] * len(line.seeds), ".", color=FAINT, markersize=5, zorder=3)
        left.errorbar(line.log_px, y, xerr=2 * line.se, color=BLUE, capsize=3, linewidth=1.3, zorder=3)
        left.plot(line.log_px, y, "o", color=BLUE, markersize=7, zorder=4)
    left.set_xlabel("log p(x), nats per datum (right is better)")
    right.barh(range(len(lines)), [line.ms for line in lines], height=0.5, color=GREEN, alpha=0.6)
    for y, line in enumerate(lines):
        right.annotate(f"{line.steps:,.0f}", (line.ms, y), (4, 0), "data", "offset points", va="center", size=8.5)
    right.set_xlabel("ms per step (left is better)")
    right.set_xlim(0, 1.3 * max(line.ms for line in lines))
    right.tick_params(axis="y", length=0)
    right.grid(axis="x")
    return fig


@styled
def own_bounds(rows: Sequence[Row], context: str = "") -> Figure:
    """ELBO, the objective's own bound and log p(x) of each objective on one line, in the order of ``reached``.

    Args, Returns, Raises: as ``reached``.
    """
    lines = _lines(rows)
    closest = max(lines, key=lambda line: line.elbo - line.log_px)
    legend = [
        Line2D([], [], marker="o", color=BLUE, markerfacecolor="white", linestyle="", markersize=8, label="ELBO"),
        Line2D([], [], marker="D", color=RED, linestyle="", markersize=6, label="its own bound"),
        Line2D([], [], marker="D", color=RED, markerfacecolor="white", linestyle="", markersize=6, label="no bound"),
        Line2D([], [], marker="o", color=BLUE, linestyle="", markersize=8, label="log p(x)"),
    ]
    gap = number(closest.log_px - closest.elbo)
    title = f"{closest.objective} trains the guide closest to the posterior: {gap} nats"
    detail = f"{_detail(lines)} Bar: log p(x) minus ELBO, how far the guide is from the posterior."
    fig = sheet(0.75 + ROW * len(lines), title, detail, context, legend)
    ax = fig.subplots()
    floor = _rows(ax, lines, [[line.elbo, line.bound, line.log_px] for line in lines])
    for y, line in enumerate(lines):
        if line.log_px < floor:
            _off_scale(ax, y, line.log_px, BLUE)
            continue
        ax.plot([max(line.elbo, floor), line.log_px], [y, y], color=BLUE, linewidth=5, alpha=0.25, zorder=2)
        ax.plot(line.elbo, y, "o", color=BLUE, markerfacecolor="white", markeredgewidth=1.8, markersize=8, zorder=3)
        ax.plot(line.log_px, y, "o", color=BLUE, markersize=8, zorder=3)
        fill = RED if line.lower else "white"
        ax.plot(line.bound, y, "D", color=RED, markerfacecolor=fill, markeredgewidth=1.5, markersize=6, zorder=4)
        text, end = f"gap {number(line.log_px - line.elbo)}", ax.get_yaxis_transform()
        ax.annotate(text, (1, y), (6, 0), end, "offset points", va="center", color=FAINT, size=9, annotation_clip=False)
    ax.set_xlabel("nats per datum (right is better)")
    return fig


def _lines(rows: Sequence[Row]) -> list[_Line]:
    """One line an objective, the highest log p(x) first; rows that are not finite are left out."""
    groups: dict[str, list[Row]] = {}
    for i, row in enumerate(rows):
        if missing := [key for key in REQUIRED if key not in row]:
            raise ValueError(f"rows[{i}]: expected the keys {', '.join(REQUIRED)}; add {', '.join(missing)}")
        if all(math.isfinite(row[key]) for key in ("elbo", "log_px", "bound")):
            groups.setdefault(str(row["objective"]), []).append(row)
    if not groups:
        raise ValueError(f"rows: expected one with finite numbers, got {len(rows)} without; check the runs")
    lines = []
    for name, seeds in groups.items():
        elbo, bound, ms, steps = (fmean(row[key] for row in seeds) for key in ("elbo", "bound", "ms_per_step", "steps"))
        error = math.hypot(*(row.get("log_px_se") or 0.0 for row in seeds)) / len(seeds)
        lines.append(_Line(name, [row["log_px"] for row in seeds], error, elbo, bound, seeds[0]["lower"], ms, steps))
    return sorted(lines, key=lambda line: -line.log_px)


def _detail(lines: Sequence[_Line]) -> str:
    seeds = max(len(line.seeds) for line in lines)
    return f"Means over {seeds} seeds." if seeds > 1 else "One seed each."


def _rows(ax: Axes, lines: Sequence[_Line], shown: Sequence[Sequence[float]]) -> float:
    """Names the rows and sets an axis that shows the better ones apart; returns its lower end."""
    means = [line.log_px for line in lines]
    least = means[0] - max(0.5, 6 * (means[0] - median(means)))
    values = [value for line, group in zip(lines, shown, strict=True) if line.log_px >= least for value in group]
    margin = max(0.06 * (max(values) - min(values)), 1e-3 * abs(means[0]))
    ax.set_xlim(min(values) - 2 * margin, max(values) + margin)
    ax.set_ylim(len(lines) - 0.4, -0.6)
    ax.set_yticks(range(len(lines)), [line.objective for line in lines])
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")
    return min(values) - 2 * margin


def _off_scale(ax: Axes, y: float, value: float, colour: str) -> None:
    """An arrow at the left edge, with the number that lies beyond it."""
    edge = ax.get_yaxis_transform()
    ax.plot(0.015, y, "<", color=colour, markersize=7, transform=edge)
    text = f"{value:,.4g}".replace("-", "\N{MINUS SIGN}")
    ax.annotate(text, (0.03, y), xycoords=edge, va="center", color=colour, size=9)
