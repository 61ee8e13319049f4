"""Data above their reconstructions: as images, or as lines where a datum is not an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from experiments.figures.mosaic import limits, mosaic, vectors
from experiments.figures.style import FAINT, INK, WIDTH, bare, colours, number, sheet, styled


@styled
def reconstructions(
    x: Tensor,
    reconstructions: Mapping[str, Tensor],
    image_shape: Sequence[int] | None = None,
    context: str = "",
) -> Figure:
    """Data above their reconstructions, one column a datum, one row a label.

    Args:
        x: the data, shape (n, x_dim).
        reconstructions: label -> means of p(x | z) with z from the guide, shape (n, x_dim).
        image_shape: ``(height, width)`` or ``(channels, height, width)``; ``None`` draws lines.
        context: a few words on data and model, put below the title.

    Returns:
        The figure.

    Raises:
        ValueError: if shapes disagree with one another or with ``image_shape``, or nothing is to be drawn.
    """
    rows = {"data": vectors("x", x, image_shape)}
    for label, values in reconstructions.items():
        rows[label] = vectors(f"reconstructions[{label!r}]", values, image_shape)
        if rows[label].shape != rows["data"].shape:
            shapes = f"{tuple(rows['data'].shape)}, the shape of x, got {tuple(rows[label].shape)}"
            raise ValueError(f"reconstructions[{label!r}]: expected {shapes}; reconstruct the very data of x")
    if len(rows) == 1:
        raise ValueError("reconstructions: expected at least one label, got none; pass {label: means}")
    errors = {label: float((values - rows["data"]).abs().mean()) for label, values in rows.items() if label != "data"}
    best = min(errors, key=errors.__getitem__)
    title = f"Reconstruction error {number(errors[best], 3)} per dimension"
    if len(errors) > 1:
        title = f"{best} reconstructs the data best: mean absolute error {number(errors[best], 3)} per dimension"
    if image_shape is None:
        return _lines(rows, title, context)
    return _pictures(rows, errors, image_shape, title, context)


def _pictures(
    rows: Mapping[str, Tensor],
    errors: Mapping[str, float],
    image_shape: Sequence[int],
    title: str,
    context: str,
) -> Figure:
    """One picture of all images, labels on its left and errors on its right."""
    count = len(rows["data"])
    picture = mosaic(torch.cat(list(rows.values())), image_shape, count, *limits(rows.values()))
    room = WIDTH - 1.0 - 0.085 * max(map(len, rows))
    side = min(1.0, room / count)
    detail = "Each column is one datum. Right: mean absolute error over the data shown."
    fig = sheet(side * count * picture.shape[0] / picture.shape[1] + 0.4, title, detail, context)
    ax = fig.subplots()
    ax.imshow(picture.numpy(), interpolation="nearest")
    bare(ax)
    ax.set_anchor("NW")
    tall = picture.shape[0] / len(rows)
    ax.set_yticks([(i + 0.5) * tall for i in range(len(rows))], list(rows))
    ax.tick_params(axis="y", length=0, labelsize=10, labelcolor=INK)
    for i, label in enumerate(rows):
        place = (1, 1 - (i + 0.5) / len(rows))
        ax.annotate(
            number(errors[label], 3) if label in errors else "error",
            place,
            (6, 0),
            "axes fraction",
            "offset points",
            va="center",
            color=FAINT,
        )
    return fig


def _lines(rows: Mapping[str, Tensor], title: str, context: str) -> Figure:
    """One panel a datum: the vector itself in black, a coloured line for each label."""
    tint = {"data": INK, **colours(label for label in rows if label != "data")}
    legend = [Line2D([], [], color=tint[label], linewidth=2.2, label=label) for label in rows]
    count = len(rows["data"])
    wide = min(4, count)
    fig = sheet(1.9 * -(-count // wide), title, "One panel a datum.", context, legend)
    axes = fig.subplots(-(-count // wide), wide, squeeze=False, sharex=True, sharey=True).flatten()
    for i, ax in enumerate(axes):
        if i >= count:
            ax.set_visible(False)
            continue
        ax.tick_params(labelbottom=i + wide >= count)
        for label, values in rows.items():
            ax.plot(values[i].numpy(), color=tint[label], linewidth=2.6 if label == "data" else 1.3, alpha=0.9)
        ax.set(xlabel="dimension" if i + wide >= count else "", ylabel="value" if i % wide == 0 else "")
    return fig
