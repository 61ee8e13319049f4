"""Rate and distortion over beta, what each latent unit carries, and the rate that likelihoods of pixels leave to z."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from dlvm.experiments.figures.style import INK, MARKERS, PALETTE, colours, number, sheet, styled

REQUIRED = ("decoder", "beta", "rate", "distortion", "elbo", "log_px", "unit_kl")
OF_FIELDS = ("field", "rate", "log_px")
DEAD = 0.01
DEAD_RATE = 0.1  # of all units
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


@styled
def receptive_fields(rows: Sequence[Mapping], without_latents: float | None = None, context: str = "") -> Figure:
    """The rate of z above, and -log p(x) below, over the receptive field of the likelihood.

    Args:
        rows: one mapping per trained pair, with ``field`` in pixels, and ``rate`` and ``log_px`` in nats per datum.
        without_latents: log p(x) of a model of pixels alone, for comparison; None for none.
        context: a few words on data and model, put below the title.

    Returns:
        The figure.

    Raises:
        ValueError: if there is no row, one lacks a key, or one is not finite.
    """
    _check_fields(rows)
    rows = sorted(rows, key=lambda row: row["field"])
    most, least = max(rows, key=lambda row: row["rate"]), rows[-1]
    legend: list = [
        Patch(facecolor=PALETTE[0], alpha=0.8, label="rate: what z says"),
        Line2D([], [], color=PALETTE[1], marker="s", markersize=6, label="-log p(x)"),
    ]
    if without_latents is not None:
        label = f"pixels alone, without z: {number(-without_latents)}"
        legend.append(Line2D([], [], color=INK, linestyle=":", label=label))
    asleep = "nothing" if least["rate"] < DEAD_RATE else f"{number(least['rate'], 1)} nats"
    title = f"z says {number(most['rate'], 1)} nats where pixels see {_far(most['field'])}"
    if least is not most:
        title += f", and {asleep} where they see {_far(least['field'])}"
    detail = "Nats per test datum; a pixel sees all pixels before it that are at most so far away."
    fig = sheet(4.6, title, detail, context, legend)
    above, below = fig.subplots(2, 1, sharex=True)
    places = range(len(rows))
    above.bar(places, [row["rate"] for row in rows], width=0.6, color=PALETTE[0], alpha=0.8)
    for place, row in zip(places, rows, strict=True):
        above.annotate(
            number(row["rate"], 1), (place, row["rate"]), (0, 3), textcoords="offset points", ha="center", size=9
        )
    above.set_ylim(0, 1.18 * max(max(row["rate"] for row in rows), DEAD_RATE))
    above.set_ylabel("rate")
    below.plot(places, [-row["log_px"] for row in rows], color=PALETTE[1], marker="s", markersize=6)
    if without_latents is not None:
        below.axhline(-without_latents, color=INK, linestyle=":", linewidth=1.2)
    below.set_ylabel("-log p(x)")
    below.set_xticks(places, [f"{row['field']}" for row in rows])
    below.set_xlabel("receptive field of p(x_d | x_<d, z), pixels")
    for ax in (above, below):
        ax.grid(axis="y")
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


def _far(field: int) -> str:
    return "no other" if field == 0 else f"{field} {'pixel' if field == 1 else 'pixels'} far"


def _check_fields(rows: Sequence[Mapping]) -> None:
    if not rows:
        raise ValueError("rows: expected one mapping per trained pair, got none")
    for i, row in enumerate(rows):
        for key in OF_FIELDS:
            if key not in row or not math.isfinite(row[key]):
                raise ValueError(f"rows[{i}] must have a finite {key!r}, got {row.get(key)!r}; leave out what failed")
