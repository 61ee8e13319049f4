"""How far methods of filling holes are off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from matplotlib.figure import Figure

from dlvm.experiments.figures.style import FAINT, PALETTE, Row, number, sheet, styled


@styled
def imputation_errors(rows: Sequence[Row], context: str = "") -> Figure:
    """The root mean squared error of each method, one panel for each kind of holes; a tick for each seed.

    Args:
        rows: one a run: ``holes`` and ``label``, words; ``rmse``, in standard deviations of columns.
        context: a few words on data, put below the title.

    Returns:
        The figure.

    Raises:
        ValueError: there is nothing to draw, or an error is not finite.
    """
    if not rows:
        raise ValueError("rows: expected at least one run, got none; pass those that finished")
    if not all(math.isfinite(row["rmse"]) for row in rows):
        raise ValueError("rows: expected finite errors, got others; leave out what failed")
    kinds, labels = (list(dict.fromkeys(row[name] for row in rows)) for name in ("holes", "label"))
    runs = {(k, w): [r["rmse"] for r in rows if (r["holes"], r["label"]) == (k, w)] for k in kinds for w in labels}
    means = {key: fmean(values) for key, values in runs.items() if values}
    best = {kind: min((w for w in labels if (kind, w) in means), key=lambda w: means[kind, w]) for kind in kinds}
    title = "; ".join(f"{kind.replace('_', ' ')}: {best[kind]} errs least on average" for kind in kinds)
    detail = "Root mean squared error of hidden numbers, in standard deviations of their column; ticks: each seed."
    fig = sheet((0.42 * len(labels) + 0.55) * len(kinds), title, detail, context)
    for ax, kind in zip(fig.subplots(len(kinds), 1, sharex=True, squeeze=False)[:, 0], kinds, strict=True):
        for y, label in enumerate(labels):
            if (kind, label) not in means:
                continue
            tint, mean = PALETTE[0] if label == best[kind] else FAINT, means[kind, label]
            ax.barh([y], [mean], color=tint, height=0.55)
            ax.plot(runs[kind, label], [y] * len(runs[kind, label]), "|", color=PALETTE[1], markersize=9)
            ax.annotate(number(mean), (0, y), (4, 0), textcoords="offset points", va="center", color="white")
        ax.set(yticks=range(len(labels)), yticklabels=labels, ylim=(len(labels) - 0.5, -0.5))
        ax.set_title(f"holes: {kind.replace('_', ' ')}")
        ax.grid(axis="x")
    fig.axes[-1].set_xlabel("error (standard deviations)")
    return fig
