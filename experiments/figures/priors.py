"""What priors are worth beside the standard normal, and the pseudo-inputs that one of them has learned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor

from dlvm.experiments.figures.images import limits, mosaic, vectors
from dlvm.experiments.figures.style import FAINT, INK, PALETTE, WIDTH, Row, bare, number, sheet, styled


@styled
def gains(rows: Sequence[Row], reference: str, context: str = "") -> Figure:
    """By how much each prior's log p(x) exceeds the reference's: a point with its interval, and each seed's.

    Args:
        rows: one a prior, in the order to draw them: ``prior``, a word; ``gain``, nats per datum, with ``low`` and
            ``high`` around it; ``seeds``, the gain in each.
        reference: the prior that has no gain.
        context: a few words on data and model, put below the title.

    Returns:
        The figure.

    Raises:
        ValueError: there is nothing to draw, or a number is not finite.
    """
    if not rows:
        raise ValueError("rows: expected at least one prior beside the reference, got none; name more")
    if not all(math.isfinite(value) for row in rows for value in (row["gain"], row["low"], row["high"])):
        raise ValueError("rows: expected finite gains, got others; leave out what failed")
    best = max(rows, key=lambda row: row["gain"])
    sure = best["low"] > 0
    title = f"{best['prior']} gains {number(best['gain'])} nats per datum over {reference}" if sure else (
        f"No prior is surely better than {reference}"
    )  # fmt: skip
    detail = (
        "Test log p(x) minus that of the reference; bar: two standard errors over data and seeds; ticks: each seed."
    )
    fig = sheet(0.45 * len(rows) + 0.7, title, detail, context)
    ax = fig.subplots()
    ax.axvline(0, color=INK, linewidth=1)
    for y, row in enumerate(rows):
        tint = PALETTE[0] if row["low"] > 0 else PALETTE[1] if row["high"] < 0 else FAINT
        ax.plot([row["low"], row["high"]], [y, y], color=tint, linewidth=3, alpha=0.5, solid_capstyle="butt")
        ax.plot([row["gain"]], [y], "o", color=tint, markersize=8)
        ax.plot(row["seeds"], [y + 0.25] * len(row["seeds"]), "|", color=tint, markersize=7)
        ax.annotate(number(row["gain"]), (row["gain"], y), (0, 7), textcoords="offset points", ha="center", color=tint)
    ax.set(yticks=range(len(rows)), yticklabels=[row["prior"] for row in rows], ylim=(len(rows) - 0.4, -0.7))
    ax.set_xlabel(f"gain over {reference} (nats per datum)")
    ax.grid(axis="x")
    return fig


@styled
def pseudo_inputs(groups: Mapping[str, Tensor], image_shape: Sequence[int] | None = None, context: str = "") -> Figure:
    """Pseudo-inputs beside data, one panel a label.

    Args:
        groups: label -> pseudo-inputs or data, shape (n, x_dim).
        image_shape: ``(height, width)`` or ``(channels, height, width)``; ``None`` draws lines.
        context: a few words on data and model, put below the title.

    Returns:
        The figure.

    Raises:
        ValueError: a shape disagrees with ``image_shape``, or there is nothing to draw.
    """
    if not groups:
        raise ValueError("groups: expected at least one label, got none; pass {label: pseudo-inputs}")
    rows = {label: vectors(f"groups[{label!r}]", values, image_shape) for label, values in groups.items()}
    side = WIDTH / max(2, len(rows))
    title = "The data that a VampPrior has made up for itself"
    detail = (
        "The prior is a mixture of what the guide says of each pseudo-input; values are shown as the encoder sees them."
    )
    fig = sheet(side + 0.3 if image_shape else 2.4, title, detail, context)
    low, high = limits(rows.values())
    for ax, (label, values) in zip(fig.subplots(1, len(rows), squeeze=False)[0], rows.items(), strict=True):
        ax.set_title(label)
        if image_shape is None:
            ax.plot(values.T.numpy(), color=PALETTE[0], alpha=0.35, linewidth=0.9)
            ax.set(xlabel="dimension", ylabel="value")
        else:
            wide = math.ceil(math.sqrt(len(values)))
            ax.imshow(mosaic(values, image_shape, wide, low, high).numpy(), interpolation="nearest")
            bare(ax)
    return fig
