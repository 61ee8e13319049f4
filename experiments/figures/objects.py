"""Images with the boxes of the objects that are seen in them, above the sum of these objects."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from dlvm.experiments.figures.images import vectors
from dlvm.experiments.figures.style import PALETTE, WIDTH, bare, sheet, styled


@styled
def objects(
    x: Tensor, means: Tensor, where: Tensor, there: Tensor, sides: tuple[int, int], context: str = ""
) -> Figure:
    """One column a datum: the image with a box around each object, then what the objects are together.

    Args:
        x: the data, shape (n, height width).
        means: E p(x | objects), the same shape.
        where: shape (n, objects, 3): log extent and centre of each, as ``dlvm.nets.windows.placing.placed`` takes them.
        there: shape (n, objects), 1 for an object that is there and 0 for one that is not.
        sides: (height, width).
        context: a few words on data and model, put below the title.

    Returns:
        The figure.

    Raises:
        ValueError: shapes disagree, or there is nothing to draw.
    """
    rows = {"data": vectors("x", x, sides), "objects": vectors("means", means, sides)}
    where, there = (torch.as_tensor(value).detach().cpu() for value in (where, there))
    n = len(rows["data"])
    if where.shape != (n, *there.shape[1:], 3) or there.shape[:1] != (n,) or len(rows["objects"]) != n:
        got = f"{tuple(where.shape)} and {tuple(there.shape)}"
        raise ValueError(
            f"where, there: expected shapes ({n}, objects, 3) and ({n}, objects), got {got}; one row a datum"
        )
    found = there.sum(1)
    title = f"{float(found.float().mean()):.1f} objects are found in an image on average"
    detail = (
        "Above: data, the number of objects found, a box around each. Below: these objects as the model draws them."
    )
    fig = sheet(2 * (WIDTH / n + 0.2), title, detail, context)
    axes = fig.subplots(2, n, squeeze=False)
    for i in range(n):
        for ax, values in zip(axes[:, i], rows.values(), strict=True):
            ax.imshow(values[i].reshape(sides).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            bare(ax)
        for k in torch.arange(there.shape[1])[there[i] > 0].tolist():
            _box(axes[0, i], where[i, k], sides, PALETTE[(k + 1) % len(PALETTE)])
        axes[0, i].set_title(f"{int(found[i])}")
    for ax, label in zip(axes[:, 0], rows, strict=True):
        ax.set_ylabel(label)
    return fig


def _box(ax: Axes, where: Tensor, sides: tuple[int, int], colour: str) -> None:
    extent, y, x = where.tolist()
    wide = float(torch.tensor(extent).exp()) * max(sides)
    top, left = ((side - 1) * (1 + centre) / 2 - wide / 2 for side, centre in zip(sides, (y, x), strict=True))
    ax.add_patch(Rectangle((left, top), wide, wide, fill=False, edgecolor=colour, linewidth=1.6, clip_on=True))
    ax.set(xlim=(-0.5, sides[1] - 0.5), ylim=(sides[0] - 0.5, -0.5))
