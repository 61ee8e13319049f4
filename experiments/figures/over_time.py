"""What bounds lose as sequences grow, and bands around what was not seen of a sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from dlvm.experiments.figures.style import FAINT, MARKERS, PALETTE, colours, number, sheet, styled


@styled
def gaps_by_length(gaps: Mapping[str, Mapping[int, tuple[float, float]]], context: str = "") -> Figure:
    """How far each bound lies below log p(x), per time step, against the length of sequences.

    Args:
        gaps: {bound: {steps: (nats of whole sequences, standard error)}}.
        context: a few words on model and guide, put below the title.

    Returns:
        The figure.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not gaps or not all(gaps.values()):
        raise ValueError("gaps: expected at least one bound with the gap of one length, got none")
    paints, longest = colours(gaps), max(n for line in gaps.values() for n in line)
    at_last = {bound: line[longest][0] / longest for bound, line in gaps.items() if longest in line}
    best = min(at_last, key=at_last.__getitem__)
    legend = [
        Line2D([], [], color=paints[bound], marker=MARKERS[i % len(MARKERS)], markersize=6, label=bound)
        for i, bound in enumerate(gaps)
    ]
    title = f"On sequences of {longest} steps {best} loses least: {number(at_last[best])} nats per step"
    fig = sheet(3.6, title, "log p(x), which is exact, minus each bound; bars are standard errors.", context, legend)
    ax = fig.subplots()
    for i, (bound, line) in enumerate(gaps.items()):
        at = sorted(line)
        values, errors = ([line[n][part] / n for n in at] for part in (0, 1))
        ax.errorbar(at, values, errors, color=paints[bound], marker=MARKERS[i % len(MARKERS)], markersize=6, capsize=2)
    ticks = sorted({n for line in gaps.values() for n in line})
    ax.set(xscale="log", xlabel="steps of a sequence", ylabel="nats lost per step")
    ax.set_xticks(ticks, [str(n) for n in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.axhline(0, color=FAINT, linewidth=0.8)
    ax.grid(True)
    return fig


@styled
def bands_over_time(
    truth: np.ndarray, hidden: np.ndarray, draws: np.ndarray, names: Sequence[str], title: str, context: str = ""
) -> Figure:
    """One sequence, what was hidden of it, and the bands in which a model expects that.

    Args:
        truth: shape (T, D).
        hidden: which steps the model did not see, shape (T,), truth values.
        draws: of all steps given those that were seen, shape (S, T, D).
        names: of the variables, one panel each.
        title: the message.
        context: a few words on data and model, put below the title.

    Returns:
        The figure.

    Raises:
        ValueError: shapes do not go together, or nothing is hidden.
    """
    steps, width = truth.shape
    if draws.shape[1:] != truth.shape or hidden.shape != (steps,) or len(names) != width or not hidden.any():
        raise ValueError(
            f"draws, hidden and names must go with truth of shape {truth.shape}, got {draws.shape}, {hidden.shape} and "
            f"{len(names)} names; and some step must be hidden"
        )
    legend = [
        Line2D([], [], color="black", marker=".", linestyle="", label="seen"),
        Line2D([], [], color=PALETTE[1], marker="x", linestyle="", label="hidden"),
        Patch(color=PALETTE[0], alpha=0.45, linewidth=0, label="50 % band"),
        Patch(color=PALETTE[0], alpha=0.2, linewidth=0, label="90 % band"),
    ]
    detail = "Bands of hidden steps given all that is seen: nine crosses in ten should lie in the wide ones."
    fig = sheet(1.5 * width, title, detail, context, legend)
    time = np.arange(1, steps + 1)
    for ax, i in zip(fig.subplots(width, 1, sharex=True, squeeze=False)[:, 0], range(width), strict=True):
        for share, alpha in ((0.9, 0.2), (0.5, 0.45)):
            low, high = np.quantile(draws[:, :, i], [(1 - share) / 2, (1 + share) / 2], axis=0)
            ax.fill_between(time, low, high, where=_widened(hidden), color=PALETTE[0], alpha=alpha, linewidth=0)
        ax.plot(time[~hidden], truth[~hidden, i], ".", color="black", markersize=4)
        ax.plot(time[hidden], truth[hidden, i], "x", color=PALETTE[1], markersize=5)
        ax.set_title(names[i])
        ax.grid(True)
    fig.axes[-1].set_xlabel("time step")
    return fig


def _widened(hidden: np.ndarray) -> np.ndarray:
    """Hidden steps and their neighbours, so that the band of a single one has a width."""
    return (
        hidden
        | np.roll(hidden, 1) & (np.arange(len(hidden)) > 0)
        | np.roll(hidden, -1) & (np.arange(len(hidden)) < len(hidden) - 1)
    )
