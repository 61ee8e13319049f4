"""Hierarchies of latent layers: what each inference order reaches with depth, and what the layers hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from dlvm.experiments.figures.style import FAINT, INK, MARKERS, PALETTE, WIDTH, Look, Row, number, sheet, styled

REQUIRED = ("layers", "order", "log_px", "kl", "active", "sizes")
ROW = 0.42  # inches
HELD = 0.1  # nats above which a layer counts as used
RAMP = LinearSegmentedColormap.from_list("kl", [PALETTE[1], "#ffffff", PALETTE[0]])
Rows = Sequence[Row]
Groups = dict[tuple[int, str], list[Row]]


@styled
def by_depth(rows: Rows, context: str = "") -> Figure:
    """log p(x) against the number of latent layers, a line per inference order; every seed a dot.

    Args:
        rows: one mapping per trained pair, with ``layers``, ``order``, ``log_px`` (nats per datum), ``kl`` and
            ``active`` ({site: number}), ``sizes`` (dimensions of z1, z2, ...) and, if known, ``log_px_se``. Rows of one
            order and depth are seeds.
        context: a few words on data, model and time, put below the title.

    Returns:
        The figure.

    Raises:
        ValueError: if a row lacks a key, or if there is no finite row.
    """
    groups = _groups(rows)
    depths, orders = sorted({depth for depth, _ in groups}), list(dict.fromkeys(order for _, order in groups))
    look: dict[str, Look] = {
        order: {"color": PALETTE[i % 7], "marker": MARKERS[i % 7]} for i, order in enumerate(orders)
    }
    legend = [Line2D([], [], **look[order], markersize=6, label=order) for order in orders]
    seeds = max(len(runs) for runs in groups.values())
    dots = f"Means over {seeds} seeds, each a dot" if seeds > 1 else "One seed each"
    detail = f"{dots}; bars: ± 2 standard errors of importance sampling."
    fig = sheet(3.4, _best(groups, depths), detail, context, legend)
    ax = fig.subplots()
    for i, order in enumerate(orders):
        shift = 0.09 * (i - (len(orders) - 1) / 2)
        mine = [(depths.index(depth), runs) for (depth, name), runs in groups.items() if name == order]
        places = [place + shift for place, _ in sorted(mine, key=lambda pair: pair[0])]
        means = [_mean(runs) for _, runs in sorted(mine, key=lambda pair: pair[0])]
        errors = [2 * _se(runs) for _, runs in sorted(mine, key=lambda pair: pair[0])]
        ax.errorbar(places, means, yerr=errors, **look[order], markersize=6, linewidth=1.2, capsize=2.5, zorder=3)
        for place, runs in mine if seeds > 1 else ():
            ax.plot([place + shift] * len(runs), [r["log_px"] for r in runs], ".", color=FAINT, markersize=4, zorder=4)
    ax.set_xticks(range(len(depths)), [str(depth) for depth in depths])
    ax.set_xlim(-0.5, len(depths) - 0.5)
    ax.set_xlabel("latent layers")
    ax.set_ylabel("log p(x), nats per datum (up is better)")
    ax.grid(axis="y")
    return fig


@styled
def layer_kl(rows: Rows, context: str = "") -> Figure:
    """KL and active units of each layer: a panel per depth, in it a row per inference order, z1 on the left.

    Args, Returns, Raises: as ``by_depth``.
    """
    groups = _groups(rows)
    depths, orders = sorted({depth for depth, _ in groups}), list(dict.fromkeys(order for _, order in groups))
    values = {key: {site: fmean(r["kl"][site] for r in runs) for site in runs[0]["kl"]} for key, runs in groups.items()}
    numbers = [value for found in values.values() for value in found.values()]
    high = max(max(numbers), 0.1)
    norm = TwoSlopeNorm(0.0, -high, high)
    legend = [Patch(facecolor=RAMP(norm(0.6 * high)), label="KL above 0")]
    if min(numbers) < -0.05:
        legend.append(Patch(facecolor=RAMP(norm(-0.6 * high)), label="below 0: q is given the layers below, p is not"))
    detail = "Large: E log q/p of the layer, nats per datum. Small: active units of its dimensions. z1 is nearest x."
    columns = sum(depths) + len(depths)
    width = max(WIDTH, 1.3 + 0.72 * columns)
    fig = sheet(0.75 + ROW * len(orders), _use(groups, depths), detail, context, legend, width)
    axes = fig.subplots(1, len(depths), squeeze=False, width_ratios=depths)[0]
    for ax, depth in zip(axes, depths, strict=True):
        table = np.full((len(orders), depth), np.nan)
        for y, order in enumerate(orders):
            for x in range(depth) if (depth, order) in values else ():
                table[y, x] = values[depth, order][f"z{x + 1}"]
                _cell(ax, x, y, table[y, x], groups[depth, order], high)
        ax.imshow(table, cmap=RAMP, norm=norm, aspect="auto")
        ax.set_xticks(range(depth), [f"z{x + 1}" for x in range(depth)])
        ax.set_yticks(range(len(orders)), orders if ax is axes[0] else [""] * len(orders))
        ax.tick_params(length=0, labelcolor=INK)
        ax.set_title(f"{depth} layer{'s' * (depth != 1)}")
        ax.spines[:].set_visible(False)
    return fig


def _cell(ax: Axes, x: int, y: int, value: float, runs: Sequence[Mapping], high: float) -> None:
    colour = "white" if value > 0.75 * high else INK
    site = f"z{x + 1}"
    units = f"{fmean(run['active'][site] for run in runs):.3g}/{runs[0]['sizes'][x]}"
    ax.text(x, y - 0.12, number(value, 1), ha="center", va="center", color=colour, size=9.5)
    ax.text(x, y + 0.27, units, ha="center", va="center", color=colour, size=7.5)


def _groups(rows: Rows) -> Groups:
    """Rows by depth and order; those that are not finite are left out."""
    groups: Groups = {}
    for i, row in enumerate(rows):
        if missing := [key for key in REQUIRED if key not in row]:
            raise ValueError(f"rows[{i}]: expected the keys {', '.join(REQUIRED)}; add {', '.join(missing)}")
        if all(map(math.isfinite, (row["log_px"], *row["kl"].values()))):
            groups.setdefault((row["layers"], str(row["order"])), []).append(row)
    if not groups:
        raise ValueError(f"rows: expected one with finite numbers, got {len(rows)} without; check the runs")
    return groups


def _mean(runs: Sequence[Mapping]) -> float:
    return fmean(run["log_px"] for run in runs)


def _se(runs: Sequence[Mapping]) -> float:
    return math.hypot(*(run.get("log_px_se") or 0.0 for run in runs)) / len(runs)


def _best(groups: Groups, depths: Sequence[int]) -> str:
    """Who is best of all, and who at the greatest depth, if that is another."""
    (depth, order), runs = max(groups.items(), key=lambda item: _mean(item[1]))
    said = f"{order} reaches the highest log p(x), {number(_mean(runs))} nats, with {depth} layer{'s' * (depth != 1)}"
    if depth != depths[-1]:
        deepest = {name: _mean(found) for (d, name), found in groups.items() if d == depths[-1]}
        other = max(deepest, key=deepest.__getitem__)
        leads = "it still leads" if other == order else f"{other} leads"
        said += f"; with {depths[-1]}, {leads} at {number(deepest[other])}"
    return said


def _use(groups: Groups, depths: Sequence[int]) -> str:
    """Into how many layers of the deepest hierarchy orders put anything, at most and at least."""
    depth = depths[-1]
    used = {
        name: sum(fmean(run["kl"][site] for run in runs) > HELD for site in runs[0]["kl"])
        for (d, name), runs in groups.items()
        if d == depth
    }
    most, least = max(used, key=used.__getitem__), min(used, key=used.__getitem__)
    head = f"Of {depth} layer{'s' * (depth != 1)},"
    if used[most] == used[least]:
        who = "every order puts" if len(used) > 1 else f"{most} puts"
        return f"{head} {who} more than {HELD} nats into {used[most]}"
    return f"{head} {most} puts more than {HELD} nats into {used[most]}, {least} into {used[least]}"
