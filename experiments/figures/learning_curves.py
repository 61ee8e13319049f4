"""The bound against the epoch, for every guide and objective, over seeds; and log p(x) as its distance to the best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import LineStyleType

from dlvm.experiments.figures.chart import Chart
from dlvm.experiments.figures.style import DASHES, PALETTE, Row, colours, number, sheet, styled

Label = str | tuple[str, str]
History = Sequence[Row]
Curve = tuple[np.ndarray, np.ndarray]  # epochs (E,), values (seeds, E)
CLOSE = 0.01  # nats per datum that count as having come to the best
LEAST = 1e-3  # nats per datum, the least that a logarithmic axis shows
NAMES = {"valid": "validation", "train": "training"}


@styled
def learning_curves(
    histories: Mapping[Label, Sequence[History]],
    value: str = "valid",
    context: str = "",
    clip: float = 0.2,
    what: str = "bound",
) -> Figure:
    """The bound against the epoch: the median over seeds as a line, their range as a band.

    Labels that are pairs ``(guide, objective)`` get one panel per objective and one colour per guide, since
    only values of one bound compare; plain string labels share one panel. A seed that stopped early drops
    out of the median from there on.

    Args:
        histories: label -> one list of epoch records per seed, each with ``"epoch"`` and ``value`` in nats
            per datum.
        value: which number of a record to draw, ``"valid"`` or ``"train"``; missing, ``None`` and non-finite
            ones are skipped.
        context: a few words on data and model, put below the title.
        clip: the fraction of lowest values, those of the first epochs, that may fall below the axis.
        what: what it is a number of, where it is no bound.

    Returns:
        The figure.

    Raises:
        ValueError: if no history holds a finite ``value``, if labels mix strings and pairs, or if ``clip``
            lies outside [0, 1).
    """
    if not 0 <= clip < 1:
        raise ValueError(f"clip: expected a fraction in [0, 1), got {clip}; use 0 to show every value")
    if len({isinstance(label, str) for label in histories}) > 1:
        raise ValueError("histories: expected labels all strings or all (guide, objective), got both; use one kind")
    pairs = {label: ((label, "") if isinstance(label, str) else label) for label in histories}
    curves = {pairs[label]: curve for label, runs in histories.items() if (curve := _stack(runs, value)) is not None}
    if not curves:
        raise ValueError(
            f"histories: expected records with a finite {value!r}, got none; set value= to what was logged"
        )
    guides = list(dict.fromkeys(guide for guide, _ in curves))
    panels = list(dict.fromkeys(panel for _, panel in curves))
    looks = {g: (PALETTE[i % len(PALETTE)], DASHES[i // len(PALETTE) % len(DASHES)]) for i, g in enumerate(guides)}

    low, high, hidden = _limits([values for _, values in curves.values()], clip)
    seeds = sorted({len(values) for _, values in curves.values()})
    counted = " to ".join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))
    detail = f"Line: median over {counted} seeds; band: their range." if seeds[-1] > 1 else "One seed each."
    detail += f" The lowest {hidden:.0%} of the values lie below the axis." if hidden else ""
    legend = [Line2D([], [], color=looks[g][0], linestyle=looks[g][1], linewidth=2.2, label=g) for g in guides]
    name = f"{NAMES.get(value, value)} {what}"
    fig = sheet(3.7, _message(curves, name), detail, context, legend)
    axes = fig.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, panel in zip(axes, panels, strict=True):
        for (guide, where), (epochs, values) in curves.items():
            if where == panel:
                _draw(ax, epochs, values, *looks[guide])
        ax.set(title=panel, xlabel="epoch", ylim=(low, high))
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.grid(axis="y")
        ax.margins(x=0.01)
    axes[0].set_ylabel(f"{name} (nats per datum)")
    fig.charts = [_chart(name, where, curves, looks) for where in panels]
    return fig


def _chart(name: str, panel: str, curves: Mapping[tuple[str, str], Curve], looks: Mapping[str, Any]) -> Chart:
    """Medians over seeds, as numbers."""
    found = {guide: values for (guide, where), values in curves.items() if where == panel}
    lines = {}
    for guide, (epochs, values) in found.items():
        lines[guide] = dict(zip(epochs.tolist(), np.nanmedian(values, 0).tolist(), strict=True))
    note = "Medians over seeds." if max(len(values) for _, values in found.values()) > 1 else ""
    return Chart("epoch", f"{name} (nats per datum)", f"nats below the highest {name}", lines, looks, note, panel)


def _stack(runs: Sequence[History], value: str) -> Curve | None:
    """Epochs (E,) and values (seeds, E), NaN where a seed has none; ``None`` if there is nothing at all."""
    found = [{int(r["epoch"]): float(r[value]) for r in run if r.get(value) is not None} for run in runs]
    found = [{e: v for e, v in run.items() if np.isfinite(v)} for run in found]
    epochs = sorted(set().union(*found))
    values = np.array([[run.get(e, np.nan) for e in epochs] for run in found if run])
    return (np.array(epochs), values) if epochs else None


def _limits(stacks: Sequence[np.ndarray], clip: float) -> tuple[float, float, float]:
    """Lower and upper limit that keep the best of every curve in sight, and the share of values below."""
    pooled = np.concatenate([values[np.isfinite(values)] for values in stacks])
    peaks = [np.nanmax(np.nanmedian(values, 0)) for values in stacks]
    low, high = min(np.quantile(pooled, clip), *peaks), pooled.max()
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin, float((pooled < low - margin).mean())


def _draw(ax: Axes, epochs: np.ndarray, values: np.ndarray, colour: str, dash: LineStyleType) -> None:
    if len(values) > 1:
        ax.fill_between(epochs, np.nanmin(values, 0), np.nanmax(values, 0), color=colour, alpha=0.18, linewidth=0)
    marker = "o" if len(epochs) == 1 else None
    ax.plot(epochs, np.nanmedian(values, 0), color=colour, linestyle=dash, marker=marker)


def _message(curves: Mapping[tuple[str, str], Curve], name: str) -> str:
    """Who reaches the highest median, per objective."""
    peaks = {key: float(np.nanmax(np.nanmedian(values, 0))) for key, (_, values) in curves.items()}
    panels = list(dict.fromkeys(panel for _, panel in peaks))
    if len(peaks) == 1:
        return f"The {name} reaches {number(max(peaks.values()))} nats per datum"
    winners = [max((key for key in peaks if key[1] == panel), key=peaks.__getitem__) for panel in panels]
    (guide, count) = Counter(guide for guide, _ in winners).most_common(1)[0]
    if len(panels) == 1:
        return f"{guide} reaches the highest {name}: {number(peaks[winners[0]])} nats per datum"
    where = "every objective" if count == len(panels) else f"{count} of {len(panels)} objectives"
    return f"{guide} reaches the highest {name} under {where}"


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
        rest = [name for name in curves if name not in soon]
        others = rest[0] if len(rest) == 1 else f"{len(rest)} others"
        title += f", {others} not at all" if rest else ""
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
