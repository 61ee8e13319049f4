"""Prior samples of each model: as images, or as lines where a datum is not an image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor

from experiments.figures.mosaic import limits, mosaic, vectors
from experiments.figures.style import PALETTE, WIDTH, bare, sheet, styled


@styled
def samples(images: Mapping[str, Tensor], image_shape: Sequence[int] | None = None, context: str = "") -> Figure:
    """What each model holds possible: means of p(x | z) for draws of z from the prior, one panel a label.

    Args:
        images: label -> means, shape (n, x_dim).
        image_shape: ``(height, width)`` or ``(channels, height, width)``; ``None`` draws lines.
        context: a few words on data and model, put below the title.

    Returns:
        The figure.

    Raises:
        ValueError: if a shape disagrees with ``image_shape``, or if there is nothing to draw.
    """
    if not images:
        raise ValueError("images: expected at least one label, got none; pass {label: means}")
    rows = {label: vectors(f"images[{label!r}]", values, image_shape) for label, values in images.items()}
    columns = min(3, len(rows))
    lines = math.ceil(len(rows) / columns)
    side = WIDTH / max(columns, 2)
    fig = sheet(
        lines * (side + 0.25 if image_shape else 2.2),
        "What each model generates from its prior",
        "Means of p(x | z) for z drawn from p(z).",
        context,
    )
    axes = fig.subplots(lines, columns, squeeze=False, sharex=image_shape is None, sharey=image_shape is None).flatten()
    low, high = limits(rows.values())
    for i, (label, values) in enumerate(rows.items()):
        ax = axes[i]
        ax.set_title(label)
        if image_shape is None:
            ax.plot(values.T.numpy(), color=PALETTE[0], alpha=0.35, linewidth=0.9)
            lowest = i + columns >= len(rows)
            ax.set(xlabel="dimension" if lowest else "", ylabel="value" if i % columns == 0 else "")
            ax.tick_params(labelbottom=lowest)
        else:
            wide = math.ceil(math.sqrt(len(values)))
            ax.imshow(mosaic(values, image_shape, wide, low, high).numpy(), interpolation="nearest")
            ax.set_anchor("NW")
            bare(ax)
    for ax in axes[len(rows) :]:
        ax.set_visible(False)
    return fig
