"""A canvas over time: one row a datum, one column a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dlvm.experiments.figures.images import limits, mosaic, vectors
from dlvm.experiments.figures.style import INK, bare, number, sheet, styled

MOST = 7  # columns that a phone can show, beside the data
NARROW = 5.4  # inches, so that words are large on one


@styled
def film(x: Tensor, seen: Tensor, drawn: Tensor, image_shape: Sequence[int] | None = None, context: str = "") -> Figure:
    """What a model that draws step by step has on its canvas: of data, the datum itself at the right, and of draws.

    Args:
        x: the data, shape (n, x_dim).
        seen: E p(x | canvas) before the first step and after each, shape (n, steps + 1, x_dim); the guide has seen x.
        drawn: the same of draws of the model, shape (n, steps + 1, x_dim).
        image_shape: ``(height, width)`` or ``(channels, height, width)``.
        context: a few words on data and model, put below the title.

    Returns:
        The figure; of many steps some, evenly apart, the first and the last among them.

    Raises:
        ValueError: there is no ``image_shape``, or shapes disagree.
    """
    if image_shape is None:
        raise ValueError("image_shape: expected that of images, got None; a film of other data is none")
    data = vectors("x", x, image_shape)
    for name, values in (("seen", seen), ("drawn", drawn)):
        if values.dim() != 3 or values.shape != (len(data), len(seen[0]), data.shape[1]) or len(values[0]) < 2:
            expected = f"({len(data)}, steps + 1, {data.shape[1]})"
            raise ValueError(f"{name}: expected shape {expected}, got {tuple(values.shape)}; take both of one model")
    steps = len(seen[0]) - 1
    shown = torch.linspace(0, steps, min(steps + 1, MOST)).round().long()
    films = {
        name: vectors(name, v[:, shown].flatten(0, 1), image_shape) for name, v in (("seen", seen), ("drawn", drawn))
    }
    blank = torch.ones_like(data)  # white, as the paper: a draw has no datum
    rows = [
        torch.cat([films[name].unflatten(0, (len(data), -1)), last.unsqueeze(1)], dim=1).flatten(0, 1)
        for name, last in (("seen", data), ("drawn", blank))
    ]
    low, high = limits([data, *films.values()])
    wide = len(shown) + 1
    pictures = [mosaic(each, image_shape, wide, low, high) for each in rows]
    error = float((seen[:, -1].to(data) - data).abs().mean())
    title = f"{steps} steps bring the canvas within {number(error, 3)} per pixel of the data"
    note = "Each row is one image, each column the mean of p(x | canvas) after so many steps."
    tall = (NARROW - 0.2) * pictures[0].shape[0] / pictures[0].shape[1]
    fig = sheet(2 * tall + 0.9, title, note, context, width=NARROW)
    for ax, picture, name in zip(
        fig.subplots(2, 1), pictures, ("The guide sees the datum at the right", "Drawn from the prior"), strict=True
    ):
        ax.imshow(picture.numpy(), interpolation="nearest")
        bare(ax)
        ax.set_title(name)
        ax.set_anchor("NW")
        each = picture.shape[1] / wide
        labels = [str(int(step)) for step in shown] + (["data"] if picture is pictures[0] else [])
        ax.set_xticks([(i + 0.5) * each for i in range(len(labels))], labels)
        ax.tick_params(axis="x", length=0, labelsize=10, labelcolor=INK)
    return fig
