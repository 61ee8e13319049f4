"""What few labels leave wrong, by how many there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from dlvm.experiments.figures.style import DASHES, FAINT, MARKERS, colours, number, sheet, styled


@styled
def errors_by_labels(
    errors: Mapping[str, Mapping[int, Sequence[float]]],
    published: Mapping[str, Mapping[int, float]] | None = None,
    context: str = "",
) -> Figure:
    """Errors against the number of labels, a line for each way through its means, every seed a dot.

    Args:
        errors: {way: {labels: error with each seed, per cent}}.
        published: {way: {labels: per cent}}, drawn as dashed lines in the colour of the way.
        context: a few words on data and training, put below the title.

    Returns:
        The figure.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not errors or not all(errors.values()):
        raise ValueError("errors: expected at least one way with the errors of one number of labels, got none")
    known = {} if published is None else {way: line for way, line in published.items() if way in errors}
    paints, few = colours(errors), min(n for line in errors.values() for n in line)
    means = {way: fmean(line[few]) for way, line in errors.items() if few in line}
    best = min(means, key=means.__getitem__)
    legend = [
        Line2D([], [], color=paints[way], marker=MARKERS[i % len(MARKERS)], markersize=6, label=way)
        for i, way in enumerate(errors)
    ]
    if known:
        legend.append(Line2D([], [], color=FAINT, linestyle=DASHES[1], label="published, same colour"))
    title = f"With {few} labels {best} errs least: {number(means[best], 1)} %"
    fig = sheet(3.6, title, "Lines go through means over seeds, each a dot; lower is better.", context, legend)
    ax = fig.subplots()
    for i, (way, line) in enumerate(errors.items()):
        at = sorted(line)
        paint, marker = paints[way], MARKERS[i % len(MARKERS)]
        ax.plot(at, [fmean(line[n]) for n in at], color=paint, marker=marker, markersize=6)
        for n in at:
            ax.plot([n] * len(line[n]), line[n], ".", color=paint, markersize=4, alpha=0.6)
        if way in known:
            ax.plot(sorted(known[way]), [known[way][n] for n in sorted(known[way])], color=paint, linestyle=DASHES[1])
    ticks = sorted({n for line in errors.values() for n in line})
    ax.set(xscale="log", yscale="log", xlabel="labels shown in training", ylabel="test error, %")
    ax.set_xticks(ticks, [str(n) for n in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    low, high = ax.get_ylim()
    marks = [m for m in (0.5, 1, 2, 3, 5, 10, 20, 30, 50, 90) if low <= m <= high]
    ax.set_yticks(marks, [f"{m:g}" for m in marks])
    ax.yaxis.set_minor_locator(NullLocator())
    ax.grid(True)
    return fig
