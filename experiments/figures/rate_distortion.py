"""Rate and distortion over beta: the plane of both with its corners, and what each latent unit carries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from dlvm.experiments.figures.style import INK, MARKERS, PALETTE, colours, number, sheet, styled

REQUIRED = ("decoder", "beta", "rate", "distortion", "elbo", "log_px", "unit_kl")
DEAD = 0.01
CORNER = 0.03  # share of the axis within which points have one label
Rows = Sequence[Mapping]


@styled
def rate_distortion_plane(rows: Rows, without_code: float | None, context: str = "") -> Figure:
    """Distortion against rate, a curve per decoder and a point per beta, with the lines of equal ELBO.

    Args:
        rows: one mapping per trained pair, with ``decoder``, ``beta``, ``rate``, ``distortion``, ``elbo`` and
            ``log_px`` in nats per datum, and ``unit_kl``, the rate of each unit.
        without_code: distortion of the best decoder that is told nothing, the corner of rate 0; None if unknown.
        context: a few words on data and model, put below the title.

    Returns:
        The figure.

    Raises:
        ValueError: if there is no row, one lacks a key, or one is not finite.
    """
    groups = _groups(rows)
    hue = colours(groups)
    best, likeliest = max(rows, key=lambda row: row["elbo"]), max(rows, key=lambda row: row["log_px"])
    legend = [
        Line2D([], [], color=hue[name], marker=MARKERS[i % 7], markersize=6, label=f"{name} decoder")
        for i, name in enumerate(groups)
    ]
    legend += [
        Line2D([], [], color=INK, linestyle=":", label="the best ELBO"),
        Line2D([], [], color=PALETTE[2], linestyle="--", label="the best log p(x)"),
    ]
    if without_code is not None:
        label = f"no code: {number(without_code, 1)}"
        legend.append(Line2D([], [], color=INK, marker="*", markersize=11, linestyle="", label=label))
    title = f"beta {best['beta']:g} with the {best['decoder']} decoder has the best ELBO, {number(best['elbo'])} nats"
    if likeliest is not best:
        title += f"; log p(x) is best with beta {likeliest['beta']:g}, {likeliest['decoder']}"
    fig = sheet(
        4.6,
        title,
        "Numbers are betas. Lines of slope -1 join what has the same sum; at distortion 0 is the auto-encoder.",
        context,
        legend,
    )
    ax = fig.subplots()
    right = 1.08 * max(max(row["rate"] for row in rows), -likeliest["log_px"])
    highest = max(row["distortion"] for row in rows)
    top = 1.08 * max(highest, without_code or highest)
    for i, (name, mine) in enumerate(groups.items()):
        rates, distortions = [row["rate"] for row in mine], [row["distortion"] for row in mine]
        ax.plot(rates, distortions, color=hue[name], marker=MARKERS[i % 7], markersize=6, linewidth=1.3, zorder=3)
        _name(ax, [row for row in mine if row["rate"] > CORNER * right], hue[name], above=i % 2 == 0)
    corner = sorted({row["beta"] for row in rows if row["rate"] <= CORNER * right})
    text = ", ".join(f"{beta:g}" for beta in corner)
    ax.annotate(text, (0, without_code or highest), (12, 2), "data", "offset points", size=9, zorder=5)
    for total, colour, dash in ((-best["elbo"], INK, ":"), (-likeliest["log_px"], PALETTE[2], "--")):
        ax.plot([0, total], [total, 0], color=colour, linestyle=dash, linewidth=1.2, zorder=1)
    if without_code is not None:
        ax.plot(0, without_code, "*", color=INK, markersize=13, clip_on=False, zorder=4)
    ax.set(xlim=(0, right), ylim=(0, top))
    ax.set_xlabel("rate: E KL(q(z | x) || p(z)), nats per datum")
    ax.set_ylabel("distortion: -E log p(x | z), nats per datum")
    ax.grid()
    return fig


@styled
def unit_rates(rows: Rows, context: str = "") -> Figure:
    """The rate of every latent unit, stacked, a panel per decoder and a bar per beta; above it how many carry nothing.

    Args, Returns, Raises: as ``rate_distortion_plane``.
    """
    groups = _groups(rows)
    dead = {id(row): sum(kl < DEAD for kl in row["unit_kl"]) for row in rows}
    worst = max(rows, key=lambda row: dead[id(row)])
    title = "Every unit carries something at every beta"
    if dead[id(worst)]:
        count, units = dead[id(worst)], len(worst["unit_kl"])
        title = (
            f"With beta {worst['beta']:g} and the {worst['decoder']} decoder, {count} of {units} units carry nothing"
        )
    legend = [Patch(facecolor=PALETTE[0], edgecolor="white", label="one unit, the largest at the bottom")]
    detail = f"Above each bar: units that carry at least {DEAD} nats."
    fig = sheet(3.2, title, detail, context, legend)
    axes = fig.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for ax, (name, mine) in zip(axes, groups.items(), strict=True):
        for x, row in enumerate(mine):
            below = 0.0
            for kl in sorted(row["unit_kl"], reverse=True):
                ax.bar(x, kl, bottom=below, width=0.62, color=PALETTE[0], alpha=0.8, edgecolor="white", linewidth=0.8)
                below += kl
            alive = len(row["unit_kl"]) - dead[id(row)]
            text = f"{alive} of {len(row['unit_kl'])}"
            ax.annotate(text, (x, below), (0, 4), "data", "offset points", ha="center", size=9)
        ax.set_xticks(range(len(mine)), [f"{row['beta']:g}" for row in mine])
        ax.set_title(f"{name} decoder")
        ax.set_xlabel("beta")
        ax.grid(axis="y")
    axes[0].set_ylim(top=1.1 * axes[0].get_ylim()[1])
    axes[0].set_ylabel("rate, nats per datum")
    return fig


def _name(ax: Axes, rows: Rows, colour: str, above: bool) -> None:
    """Writes each point's beta beside it, on the curve's own side."""
    place, anchor = ((5, 5), ("left", "bottom")) if above else ((-5, -5), ("right", "top"))
    for row in rows:
        ax.annotate(
            f"{row['beta']:g}", (row["rate"], row["distortion"]), place, "data", "offset points",
            ha=anchor[0], va=anchor[1], color=colour, size=9, zorder=5,
        )  # fmt: skip


def _groups(rows: Rows) -> dict[str, list[Mapping]]:
    """Rows by decoder, by rising beta."""
    groups: dict[str, list[Mapping]] = {}
    for i, row in enumerate(rows):
        if missing := [key for key in REQUIRED if key not in row]:
            raise ValueError(f"rows[{i}]: expected the keys {', '.join(REQUIRED)}; add {', '.join(missing)}")
        if not all(map(math.isfinite, (row["rate"], row["distortion"], row["elbo"], row["log_px"]))):
            raise ValueError(
                f"rows[{i}]: expected finite numbers, got {row['rate']}, {row['distortion']}, ...; drop it"
            )
        groups.setdefault(str(row["decoder"]), []).append(row)
    if not groups:
        raise ValueError("rows: expected at least one, got none; check the runs")
    return {name: sorted(mine, key=lambda row: row["beta"]) for name, mine in groups.items()}
