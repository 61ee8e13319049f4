"""How much of a stochastic gradient is signal: against the number of particles, and against its bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from dlvm.experiments.figures.style import DASHES, FAINT, INK, MARKERS, PALETTE, Look, Row, number, sheet, styled
from dlvm.experiments.measures.gradient_moments import FITTED


@styled
def signal_to_noise(rows: Sequence[Row], context: str = "") -> Figure:
    """Signal-to-noise ratio and variance of the gradient against the number of particles.

    One column per group of parameters, one curve per estimator. Estimators named "family, variant" share the colour of
    their family. The title compares the first two estimators on the last group.

    Args:
        rows: mappings with ``group``, ``estimator``, ``num_particles``, ``snr``, ``variance``, ``resolved`` (whether
            the repetitions suffice to tell the signal from zero; if not, ``snr`` is an upper limit) and ``theory``
            (the slope of snr in log-log, or None).
        context: a few words on data and model, put below the title.

    Returns:
        The figure.

    Raises:
        ValueError: if there is no row.
    """
    if not rows:
        raise ValueError("rows: expected at least one estimator at one number of particles, got none; check the runs")
    curves: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["num_particles"]):
        curves.setdefault((row["group"], row["estimator"]), []).append(row)
    groups, looks = list(dict.fromkeys(row["group"] for row in rows)), _looks(rows)
    detail = "SNR: |mean| / standard deviation of a group's gradient."
    detail += " Hollow: upper limit." if not all(row["resolved"] for row in rows) else ""
    detail += " Thin black: slope in theory." if any(row["theory"] is not None for row in rows) else ""
    legend = [Line2D([], [], **look, label=name) for name, look in looks.items()]
    fig = sheet(6.0, _message(curves, groups[-1], list(looks)), detail, context, legend)
    axes = fig.subplots(2, len(groups), sharex=True, sharey="row", squeeze=False)
    for column, group in enumerate(groups):
        own = {name: points for (where, name), points in curves.items() if where == group}
        for ax, value in zip(axes[:, column], ("snr", "variance"), strict=True):
            for name, points in own.items():
                _draw(ax, points, value, looks[name])
            _scales(ax, sorted({row["num_particles"] for row in rows}))
        _theory(axes[0, column], own)
        if len(own) > 1 and _coincide(list(own.values())):
            axes[0, column].annotate(
                f"all {len(own)} curves coincide", (0.03, 0.03), xycoords="axes fraction", color=FAINT
            )
        axes[0, column].set_title(group)
        axes[1, column].set_xlabel("particles per datum")
    axes[0, 0].set_ylabel("signal-to-noise ratio")
    axes[1, 0].set_ylabel("variance of the gradient\n(nats per unit of parameter)²")
    return fig


def _looks(rows: Sequence[Row]) -> dict[str, Look]:
    """Colour by family, dash by variant, a marker of its own for each."""
    names = list(dict.fromkeys(str(row["estimator"]) for row in rows))
    families = list(dict.fromkeys(name.split(",")[0] for name in names))
    looks: dict[str, Look] = {}
    for i, name in enumerate(names):
        family = name.split(",")[0]
        variant = [other for other in names if other.split(",")[0] == family].index(name)
        looks[name] = {
            "color": PALETTE[families.index(family) % len(PALETTE)],
            "linestyle": DASHES[variant % len(DASHES)],
            "marker": (*MARKERS, "*")[i % (len(MARKERS) + 1)],
            "markersize": 5,
        }
    return looks


def _coincide(curves: Sequence[Sequence[Row]]) -> bool:
    """Whether all curves have the same heights to a hundredth."""
    heights: dict[object, list[float]] = {}
    for row in (row for points in curves for row in points):
        heights.setdefault(row["num_particles"], []).append(row["snr"])
    return all(max(found) <= 1.01 * min(found) for found in heights.values())


def _draw(ax: Axes, points: Sequence[Row], value: str, look: Look) -> None:
    shown = [row for row in points if row[value] > 0]
    counts = [row["num_particles"] for row in shown]
    ax.plot(counts, [row[value] for row in shown], **look, zorder=3)
    if value == "snr":
        unsure = [(row["num_particles"], row[value]) for row in shown if not row["resolved"]]
        hollow: Look = {**look, "linestyle": "", "markerfacecolor": "white", "zorder": 4}
        ax.plot([count for count, _ in unsure], [height for _, height in unsure], **hollow)


def _scales(ax: Axes, counts: Sequence[int]) -> None:
    ax.set(xscale="log", yscale="log")
    ax.xaxis.set_major_locator(FixedLocator(counts))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(lambda count, _: f"{count:g}")
    ax.grid(axis="y")


def _theory(ax: Axes, curves: Mapping[str, Sequence[Row]]) -> None:
    """One line for each slope that theory gives in this panel, through the end of the first curve that has it."""
    drawn = set()
    for points in curves.values():
        last, rate = points[-FITTED:], points[-1]["theory"]
        if rate is None or rate in drawn or len(last) < 2 or not all(row["resolved"] for row in last):
            continue
        drawn.add(rate)
        counts = np.array([row["num_particles"] for row in last], dtype=float)
        middle = np.log([row["snr"] for row in last]).mean() - rate * np.log(counts).mean()
        heights = np.exp(middle) * counts**rate
        ax.plot(counts, heights, color=INK, linestyle=DASHES[1], linewidth=1.1, zorder=5)
        beside: Look = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "annotation_clip": False}
        ax.annotate(_power(rate), (counts[-1], heights[-1]), color=INK, size=9, **beside)


def _power(rate: float) -> str:
    return {0.5: "∝ √K", -0.5: "∝ 1/√K", 0.0: "constant"}.get(rate, f"∝ K^{number(rate)}")


def _message(curves: Mapping[tuple[str, str], Sequence[Row]], group: str, names: Sequence[str]) -> str:
    """What more particles do to the signal-to-noise ratio of a group under the first two estimators."""
    shown = [(name, curves[group, name]) for name in names if len(curves.get((group, name), ())) > 1][:2]
    if not shown:
        return f"Signal and noise of the gradient of {group}"
    said, before = [], ""
    for name, points in shown:
        first, last = points[0], points[-1]
        verb = "rises " if last["snr"] > first["snr"] else "falls "
        below = "" if last["resolved"] else "below "
        ends = f"from {number(first['snr'])} to {below}{number(last['snr'])} ({name})"
        said.append((verb if verb != before else "") + ends)
        before = verb
    counts = [row["num_particles"] for row in shown[0][1]]
    return f"From K = {counts[0]} to {counts[-1]} the SNR of {group} {' and '.join(said)}"


@styled
def bias_and_noise(rows: Sequence[Row], context: str = "") -> Figure:
    """Bias and standard deviation of the gradient of each estimator, in units of the true gradient.

    Args:
        rows: mappings with ``group``, ``estimator``, ``noise`` (standard deviation over norm of the true gradient),
            ``bias`` (distance of the mean from the true gradient over its norm) and ``biased`` (whether the
            repetitions tell the bias from zero; if not, ``bias`` is an upper limit).
        context: a few words on data and model, put below the title.

    Returns:
        The figure.

    Raises:
        ValueError: if there is no row.
    """
    if not rows:
        raise ValueError("rows: expected at least one estimator, got none; check the runs")
    groups = list(dict.fromkeys(row["group"] for row in rows))
    names = list(dict.fromkeys(row["estimator"] for row in rows))
    unsure: Look = {"marker": "<", "color": FAINT, "fillstyle": "none"}
    legend = [
        Line2D([], [], marker="o", linestyle="", color=PALETTE[0], markersize=8, label="noise: standard deviation"),
        Line2D([], [], marker="D", linestyle="", color=PALETTE[1], markersize=7, label="bias"),
        Line2D([], [], **unsure, linestyle="", label="upper limit of a bias not told from zero"),
    ]
    detail = "Distances in units of the true gradient's norm, log scale: left is better."
    fig = sheet(0.9 + 0.36 * len(names), _bias_message(rows, groups[-1]), detail, context, legend)
    for ax, group in zip(fig.subplots(1, len(groups), sharey=True, squeeze=False)[0], groups, strict=True):
        for row in (row for row in rows if row["group"] == group):
            y, biased = names.index(row["estimator"]), row["biased"]
            ax.plot(row["noise"], y, "o", color=PALETTE[0], markersize=8, zorder=3)
            look = {"marker": "D", "color": PALETTE[1]} if biased else unsure
            ax.plot(row["bias"], y, **look, markersize=7, zorder=4)
        ax.axvline(1.0, color=FAINT, linewidth=1, linestyle=DASHES[1])
        ax.set(xscale="log", title=group, xlabel="share of the true gradient's norm", yticks=range(len(names)))
        ax.set_yticklabels(names)
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.tick_params(axis="y", length=0, labelcolor=INK)
        ax.grid(axis="x")
    return fig


def _bias_message(rows: Sequence[Row], group: str) -> str:
    own = [row for row in rows if row["group"] == group]
    biased = [str(row["estimator"]) for row in own if row["biased"]]
    fair = [row for row in own if not row["biased"]]
    least = min(fair, key=lambda row: row["noise"])["estimator"] if fair else None
    verb = "biases" if len(biased) == 1 else "bias"
    said = f"{' and '.join(biased)} {verb} the gradient of the {group}" if biased else f"No bias in the {group} is seen"
    return said + (f"; of the others, {least} has the least noise" if least else "")
