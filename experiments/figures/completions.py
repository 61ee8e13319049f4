"""Images of which a part is seen, and what models make of the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dlvm.experiments.figures.images import mosaic, vectors
from dlvm.experiments.figures.style import INK, WIDTH, bare, sheet, styled

UNSEEN = 0.35  # the grey of pixels that are not there


@styled
def completions(
    panels: Mapping[str, Mapping[str, Tensor]], image_shape: Sequence[int], context: str = "", title: str = ""
) -> Figure:
    """Images side by side, one column a datum and one row a label, in a panel for each kind of what is seen.

    Args:
        panels: title -> label -> images in [0, 1], shape (n, x_dim), NaN where a pixel is not seen.
        image_shape: ``(height, width)`` or ``(channels, height, width)``.
        context: a few words on data and model, put below the title.
        title: in place of the usual one.

    Returns:
        The figure.

    Raises:
        ValueError: there is nothing to draw, or images do not fit ``image_shape``.
    """
    if not panels or not all(panels.values()):
        raise ValueError("panels: expected at least one of at least one row, got none; pass {title: {label: images}}")
    rows = {
        name: {
            label: vectors(f"panels[{label!r}]", each.nan_to_num(UNSEEN), image_shape) for label, each in row.items()
        }
        for name, row in panels.items()
    }
    count = len(next(iter(next(iter(rows.values())).values())))
    longest = max(len(label) for row in rows.values() for label in row)
    side = min(1.0, (WIDTH - 0.6 - 0.085 * longest) / count)
    tall = sum(len(row) for row in rows.values()) * side * 1.05 + 0.4 * len(rows)
    detail = "Each column is one datum; grey: not seen."
    fig = sheet(tall, title or "What the model makes of what it does not see", detail, context)
    heights = [len(row) for row in rows.values()]
    axes = fig.subplots(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, (name, row) in zip(axes, rows.items(), strict=True):
        picture = mosaic(torch.cat(list(row.values())), image_shape, count, 0.0, 1.0)
        ax.imshow(picture.numpy(), interpolation="nearest")
        bare(ax)
        ax.set_anchor("NW")
        if name:
            ax.set_title(name)
        high = picture.shape[0] / len(row)
        ax.set_yticks([(i + 0.5) * high for i in range(len(row))], list(row))
        ax.tick_params(axis="y", length=0, labelsize=10, labelcolor=INK)
    return fig
