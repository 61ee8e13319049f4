"""Estimates of log p(x) against what they cost, the bracket that closes, and where importance weights fail."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from torch import Tensor

from dlvm.experiments.figures.style import (
    DASHES,
    FAINT,
    INK,
    MARKERS,
    PALETTE,
    Look,
    Row,
    colours,
    number,
    sheet,
    styled,
)
from dlvm.experiments.measures.evidence_record import finite, largest

WORST_KHAT = 0.7
LEAST = 1e-4  # nats: what is smaller is drawn here
SHOWN = 4.0  # how many times the median shortfall the axis of estimates reaches down


@styled
def estimates(rows: Sequence[Row], exact: float | None = None, context: str = "") -> Figure:
    """log p(x) by method against the decoder's evaluations, and beside it the error per datum.

    Args:
        rows: one mapping per estimate, with ``method``, ``evaluations`` (per datum), ``log_px``, ``log_px_se`` and,
            where the exact value is known, ``error`` (mean of |estimate - exact| over data), all nats per datum.
        exact: log p(x), nats per datum, where it is known.
        context: a few words on data and model, put below the title.

    Raises:
        ValueError: there is no finite row.
    """
    curves = _curves(rows)
    everything = [row for curve in curves.values() for row in curve]
    best = largest(everything)
    top = best["log_px"] if exact is None else exact
    if exact is None:
        title = f"{_capital(best['method'])} finds the largest lower bound: {number(best['log_px'])} nats per datum"
    else:
        best = min(everything, key=lambda row: row["error"])
        title = f"{_capital(best['method'])} comes closest: off by {number(best['error'], 3)} nats per datum"
    legend = [Line2D([], [], **look, label=name) for name, look in _looks(curves).items()]
    if exact is not None:
        legend.append(Line2D([], [], color=INK, linewidth=1.2, linestyle=DASHES[1], label="exact"))
    detail = "Error bars: ± 2 SE of sampling. An arrow stands for a value below the axis."
    fig = sheet(3.6, title, detail, context, legend)
    axes = fig.subplots(1, 1 if exact is None else 2, squeeze=False)[0]
    floor = _floor(everything, top)
    for (name, curve), look in zip(curves.items(), _looks(curves).values(), strict=True):
        _against_cost(axes[0], curve, look, floor)
        if exact is not None:
            costs = [row["evaluations"] for row in curve]
            axes[1].plot(costs, [max(row["error"], LEAST) for row in curve], **look, label=name)
    if exact is not None:
        axes[0].axhline(exact, color=INK, linewidth=1.2, linestyle=DASHES[1], zorder=1)
        axes[1].set(yscale="log", ylabel="mean of |estimate \N{MINUS SIGN} exact|, nats")
        _decimals(axes[1].yaxis)
    highest = max(top, *(row["log_px"] + 2 * row["log_px_se"] for row in everything))
    axes[0].set_ylim(floor, highest + 0.06 * (highest - floor))
    axes[0].set_ylabel("log p(x), nats per datum")
    for ax in axes:
        ax.set(xscale="log", xlabel="evaluations of p(x | z) per datum")
        _decimals(ax.xaxis, (1,))
        ax.grid(axis="both")
    return fig


def _curves(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows that are finite by method, each by rising cost."""
    curves: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["evaluations"]):
        if math.isfinite(row["log_px"]):
            curves.setdefault(row["method"], []).append(row)
    if not curves:
        raise ValueError(f"rows: expected one with finite log_px, got {len(rows)} without; check the model")
    order = list(dict.fromkeys(row["method"] for row in rows))
    return {name: curves[name] for name in order if name in curves}


def _looks(names: Iterable[str]) -> dict[str, Look]:
    """Colour and marker of each method."""
    return {
        name: {"color": colour, "marker": MARKERS[i % len(MARKERS)], "markersize": 5.5}
        for i, (name, colour) in enumerate(colours(names).items())
    }


def _floor(rows: Sequence[Row], top: float) -> float:
    """Where the axis ends: a few median shortfalls down, for what is hopeless would hide all else."""
    short = sorted(top - row["log_px"] for row in rows)
    reach = max(SHOWN * short[len(short) // 2], 0.1)
    shown = [row for row in rows if top - row["log_px"] <= reach]
    least = min(row["log_px"] - 2 * finite(row["log_px_se"]) for row in shown) if shown else top - reach
    return min(least, top) - 0.04 * reach


def _decimals(axis: Axis, steps: tuple[int, ...] = (1, 2, 5)) -> None:
    """A logarithmic axis whose numbers are written out."""
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _against_cost(ax: Axes, curve: Sequence[Row], look: Look, floor: float) -> None:
    inside = [row for row in curve if row["log_px"] > floor]
    if inside:
        x, y, se = ([row[key] for row in inside] for key in ("evaluations", "log_px", "log_px_se"))
        ax.errorbar(x, y, yerr=[2 * finite(s) for s in se], capsize=3, **look)
    edge = ax.get_xaxis_transform()
    for row in curve:
        if row["log_px"] <= floor:
            ax.plot(row["evaluations"], 0.025, "v", color=look["color"], markersize=7, transform=edge, clip_on=False)


@styled
def closing(rows: Sequence[Row], exact: float | None = None, context: str = "") -> Figure:
    """Lower and upper bounds on log p(x) of simulated data closing in as temperatures grow, and the width left.

    Args:
        rows: one mapping per bracket, with ``start``, ``temperatures``, ``lower``, ``upper``, ``width`` and their
            ``_se``, nats per datum.
        exact: log p(x) of the same data, where it is known.
        context: a few words on data and model, put below the title.

    Raises:
        ValueError: there is no row.
    """
    if not rows:
        raise ValueError("rows: expected at least one bracket, got none; simulate data and run the sandwich")
    tint = colours(row["start"] for row in rows)
    best = min(rows, key=lambda row: abs(row["width"]) + row["width_se"])
    legend = [Line2D([], [], color=colour, linewidth=3, label=f"from the {start}") for start, colour in tint.items()]
    for name, mark in (("reverse AIS, upper bound", "v"), ("AIS, lower bound", "^")):
        legend.append(Line2D([], [], color=FAINT, marker=mark, linestyle="", markersize=6.5, label=name))
    if exact is not None:
        legend.append(Line2D([], [], color=INK, linewidth=1.2, linestyle=DASHES[1], label="exact"))
    fig = sheet(
        3.6,
        f"{best['temperatures']} temperatures from the {best['start']} leave {number(best['width'], 3)} ± "
        f"{number(best['width_se'], 3)} nats between the bounds",
        "Data simulated from the model. Error bars: ± 2 SE. Hollow: the width is smaller than 2 SE.",
        context,
        legend,
    )
    left, right = fig.subplots(1, 2)
    for start, colour in tint.items():
        curve = sorted((row for row in rows if row["start"] == start), key=lambda row: row["temperatures"])
        _band(left, curve, colour)
        _widths(right, curve, colour)
    if exact is not None:
        left.axhline(exact, color=INK, linewidth=1.2, linestyle=DASHES[1], zorder=1)
    left.set_ylabel("log p(x), nats per datum")
    right.set(yscale="log", ylabel="upper less lower bound, nats")
    _decimals(right.yaxis)
    right.axhline(0.1, color=FAINT, linewidth=1, linestyle=DASHES[2])
    right.annotate("0.1 nat", (0, 0.1), (4, 3), ("axes fraction", "data"), "offset points", size=8.5, color=FAINT)
    ticks = sorted({row["temperatures"] for row in rows})
    for ax in (left, right):
        ax.set(xscale="log", xlabel="temperatures")
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.minorticks_off()
        ax.grid(axis="y")
    return fig


def _band(ax: Axes, curve: Sequence[Row], colour: str) -> None:
    x, lower, upper = ([row[key] for row in curve] for key in ("temperatures", "lower", "upper"))
    ax.fill_between(x, lower, upper, color=colour, alpha=0.12, linewidth=0)
    for values, key, mark in ((lower, "lower_se", "^"), (upper, "upper_se", "v")):
        ax.errorbar(
            x, values, yerr=[2 * row[key] for row in curve], color=colour, marker=mark, capsize=3, markersize=5.5
        )


def _widths(ax: Axes, curve: Sequence[Row], colour: str) -> None:
    """Widths on a logarithmic axis; one within its noise is drawn hollow, at what it may be at most."""
    x = [row["temperatures"] for row in curve]
    noisy = [row["width"] < 2 * row["width_se"] for row in curve]
    y = [
        max(row["width"], 2 * row["width_se"], LEAST) if loose else max(row["width"], LEAST)
        for row, loose in zip(curve, noisy, strict=True)
    ]
    ax.plot(x, y, color=colour, zorder=2)
    for a, b, loose in zip(x, y, noisy, strict=True):
        fill = "white" if loose else colour
        ax.plot(a, b, "o", color=colour, markerfacecolor=fill, markeredgewidth=1.5, markersize=6.5, zorder=3)


@styled
def weights_by_datum(
    points: Mapping[str, tuple[Tensor, Tensor]], samples: int, known: bool, context: str = ""
) -> Figure:
    """One panel a method: k-hat of each datum's weights against how far its estimate is off.

    Args:
        points: method -> (k-hat, error), shapes (num_data,); the error is |estimate - exact| where the exact value is
            known, else the estimate's own standard error, nats.
        samples: per datum.
        known: whether the exact value is.
        context: a few words on data and model, put below the title.

    Raises:
        ValueError: no method has a datum with both.
    """
    kept = {}
    for name, (khat, error) in points.items():
        fine = khat.isfinite() & error.isfinite()
        if fine.any():
            kept[name] = (khat[fine].double(), error[fine].double().clamp_min(LEAST))
    if not kept:
        raise ValueError("points: expected a datum with a finite k-hat and error, got none; take 25 samples or more")
    share = {name: (khat > WORST_KHAT).double().mean().item() for name, (khat, _) in kept.items()}
    worst = max(share, key=share.__getitem__)
    text = "distance from the exact value" if known else "the estimate's own standard error"
    fig = sheet(
        3.1,
        f"{_capital(worst)} has most k-hats above 0.7: {100 * share[worst]:.0f} % of the data",
        f"One point a datum, {samples:,} samples each: {text} against k-hat. Above 0.7 no error bar can be trusted; "
        "the share of such data stands above each panel.",
        context,
    )
    axes = fig.subplots(1, len(kept), sharex=True, sharey=True, squeeze=False)[0]
    for ax, (name, (khat, error)), colour in zip(axes, kept.items(), PALETTE, strict=False):
        ax.axvline(WORST_KHAT, color=INK, linewidth=1, linestyle=DASHES[1], zorder=1)
        ax.plot(khat.tolist(), error.tolist(), "o", color=colour, markersize=4.5, alpha=0.6, markeredgewidth=0)
        ax.set_title(f"{name}: {100 * share[name]:.0f} %")
        ax.set(yscale="log", xlabel="k-hat")
        _decimals(ax.yaxis, (1,))
        ax.grid(axis="y")
    axes[0].set_ylabel("|estimate \N{MINUS SIGN} exact|, nats" if known else "standard error, nats")
    everything = torch.cat([khat for khat, _ in kept.values()])
    axes[0].set_xlim(min(everything.min().item(), 0.0) - 0.1, max(everything.max().item(), WORST_KHAT) + 0.2)
    return fig


def _capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"
