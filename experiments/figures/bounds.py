"""How far each bound stays below log p(x): one dumbbell per guide and objective."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dlvm.experiments.figures.style import FAINT, INK, Row, colours, number, sheet, styled

REQUIRED = ("guide", "objective", "elbo", "log_px")


@dataclass(frozen=True)
class _Cell:
    """One guide under one objective: a value per seed, nats per datum."""

    guide: str
    objective: str
    elbo: list[float]
    log_px: list[float]
    se: float

    @property
    def means(self) -> tuple[float, float]:
        return sum(self.elbo) / len(self.elbo), sum(self.log_px) / len(self.log_px)

    @property
    def gap(self) -> float:
        low, high = self.means
        return high - low


@styled
def bounds(rows: Sequence[Row], context: str = "", message: str = "") -> Figure:
    """ELBO and log p(x) of each guide and objective on one line, the gap between them as a bar.

    Args:
        rows: one mapping per trained model, with ``guide``, ``objective``, ``elbo``, ``log_px`` and, if
            known, ``log_px_se``; nats per datum. Rows of one guide and objective are seeds: their mean is
            drawn large, each of them small. Rows that are not finite are left out and counted.
        context: a few words on data and model, put below the title.
        message: the title; unless told, which guide and objective leave the smallest gap.

    Returns:
        The figure.

    Raises:
        ValueError: if a row lacks a key, or if no row is finite.
    """
    cells, lost = _cells(rows)
    best = min(cells, key=lambda cell: cell.gap)
    tint = colours(cell.guide for cell in cells)
    evidence = "log p(x) ± 2 SE" if any(cell.se for cell in cells) else "log p(x)"
    legend = [
        Line2D([], [], marker="o", color=INK, markerfacecolor="white", linestyle="", markersize=8, label="ELBO"),
        Line2D([], [], color=INK, linewidth=5, alpha=0.3, label="gap"),
        Line2D(
            [],
            [],
            marker="o",
            color=INK,
            linestyle="",
            markersize=8,
            label=evidence,
        ),
    ]
    many = max(len(cell.elbo) for cell in cells) > 1
    detail = "Large: mean over seeds; small dots: single seeds." if many else "One seed each."
    detail += f" Left out, as not finite: {lost} of {len(rows)} runs." if lost else ""
    title = message or f"{best.guide} trained with {best.objective} leaves the smallest gap: {number(best.gap)} nats"
    if len(cells) == 1 and not message:
        title = f"The ELBO stays {number(best.gap)} nats per datum below log p(x)"

    guides = list(tint)
    places = [i + 0.9 * guides.index(cell.guide) for i, cell in enumerate(cells)]
    fig = sheet(0.75 + 0.36 * (places[-1] + 1.8), title, detail, context, legend)
    ax = fig.subplots()
    for y, cell in zip(places, cells, strict=True):
        _dumbbell(ax, y, cell, tint[cell.guide])
    for guide in guides:
        top = min(y for y, cell in zip(places, cells, strict=True) if cell.guide == guide)
        ax.text(
            0,
            top - 0.72,
            guide,
            transform=ax.get_yaxis_transform(),
            color=tint[guide],
            weight="bold",
            va="center",
        )
    ax.set(
        yticks=places,
        yticklabels=[cell.objective for cell in cells],
        xlabel="nats per datum (right is better)",
    )
    ax.set_ylim(places[-1] + 0.6, -1.2)
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")
    ax.margins(x=0.04)
    return fig


def _cells(rows: Sequence[Row]) -> tuple[list[_Cell], int]:
    """Rows gathered by guide, then by objective, each in order of appearance; and the number not finite."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for i, row in enumerate(rows):
        if missing := [key for key in REQUIRED if key not in row]:
            raise ValueError(
                f"rows[{i}]: expected the keys {', '.join(REQUIRED)}, {', '.join(missing)} is missing; add it"
            )
        if math.isfinite(float(row["elbo"])) and math.isfinite(float(row["log_px"])):
            groups.setdefault((str(row["guide"]), str(row["objective"])), []).append(row)
    if not groups:
        raise ValueError(f"rows: expected one with finite elbo and log_px, got {len(rows)} without; check the runs")
    order = list(dict.fromkeys(guide for guide, _ in groups))
    cells = [
        _Cell(
            guide,
            objective,
            [float(r["elbo"]) for r in seeds],
            [float(r["log_px"]) for r in seeds],
            _error(seeds),
        )
        for (guide, objective), seeds in sorted(groups.items(), key=lambda item: order.index(item[0][0]))
    ]
    return cells, len(rows) - sum(map(len, groups.values()))


def _error(seeds: Sequence[Row]) -> float:
    """Monte Carlo standard error of the mean over seeds, whose estimates are independent."""
    return math.hypot(*(float(row.get("log_px_se") or 0.0) for row in seeds)) / len(seeds)


def _dumbbell(ax: Axes, y: float, cell: _Cell, colour: str) -> None:
    low, high = cell.means
    ax.plot([low, high], [y, y], color=colour, linewidth=5, alpha=0.3, solid_capstyle="butt", zorder=2)
    if len(cell.elbo) > 1:
        for values in (cell.elbo, cell.log_px):
            ax.plot(values, [y + 0.27] * len(values), ".", color=colour, markersize=4.5, alpha=0.75, zorder=3)
    ax.errorbar(high, y, xerr=2 * cell.se, color=colour, capsize=3, linewidth=1.3, zorder=3)
    ax.plot(low, y, "o", color=colour, markerfacecolor="white", markeredgewidth=1.8, markersize=8, zorder=4)
    ax.plot(high, y, "o", color=colour, markersize=8, zorder=4)
    ax.annotate(
        f"gap {number(cell.gap)}",
        (1.0, y),
        xycoords=ax.get_yaxis_transform(),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        color=FAINT,
        size=9,
        annotation_clip=False,
    )
