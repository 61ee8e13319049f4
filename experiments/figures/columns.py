"""Tables beside what a model makes of them: two columns as a plane, more of them one panel each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from dlvm.experiments.figures.images import vectors
from dlvm.experiments.figures.style import FAINT, INK, PALETTE, colours, number, sheet, styled

PANELS = 4  # worst columns, and as many typical ones
LONGEST = 20  # characters of a name that fit above a panel


@styled
def columns(x: Tensor, found: Tensor, names: Sequence[str] | None = None, context: str = "") -> Figure:
    """Each value against its reconstruction, for the worst columns and for typical ones.

    A column's error is the root of the mean square of what is left of it, divided by its standard deviation: 1 for a
    reconstruction that knows the column's mean alone.

    Args:
        x: the data, shape (n, x_dim); entries that are NaN are left out.
        found: means of p(x | z) with z from the guide, shape (n, x_dim).
        names: of the columns; "column 1", "column 2", ... unless told.
        context: a few words on data and model, put below the title.

    Returns:
        The figure.

    Raises:
        ValueError: the shapes differ, a reconstruction is not finite, or there is not one name a column.
    """
    found = vectors("found", found, None)
    x = torch.as_tensor(x).detach().to("cpu", torch.float32)
    if x.shape != found.shape:
        raise ValueError(f"found: expected {tuple(x.shape)}, the shape of x, got {tuple(found.shape)}")
    names = [f"column {i + 1}" for i in range(x.shape[1])] if names is None else list(names)
    if len(names) != x.shape[1]:
        raise ValueError(f"names: expected {x.shape[1]}, one a column, got {len(names)}; leave them out")
    left = errors(x, found)
    order = left.argsort(descending=True).tolist()
    middle = len(order) // 2
    typical = [d for d in order[PANELS:] if d in order[max(0, middle - PANELS // 2) : middle + PANELS // 2]]
    shown = [(d, "worst") for d in order[:PANELS]] + [(d, "typical") for d in typical]
    wide = min(PANELS, len(shown))
    title = f"A typical column is known to {number(left.median().item())} of its standard deviation"
    detail = f"Reconstruction (upwards) against data, {len(x)} rows; on the line they agree. Worst columns first."
    fig = sheet(2.6 * -(-len(shown) // wide), title, detail, context)
    axes = fig.subplots(-(-len(shown) // wide), wide, squeeze=False).flatten()
    for ax, (d, kind) in zip(axes, shown, strict=False):
        there = x[:, d].isfinite()
        both = torch.stack([x[there, d], found[there, d]])
        low, high = both.min().item(), both.max().item()
        ax.plot([low, high], [low, high], color=FAINT, linewidth=0.8)
        ax.scatter(
            both[0].numpy(), both[1].numpy(), s=10, alpha=0.5, linewidths=0, color=PALETTE[1 if kind == "worst" else 0]
        )
        name = names[d] if len(names[d]) <= LONGEST else f"{names[d][: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
        ax.set_title(f"{name}\n{number(left[d].item())}, {kind}")
    for ax in axes[len(shown) :]:
        ax.set_visible(False)
    return fig


def errors(x: Tensor, found: Tensor) -> Tensor:
    """The error of each column, relative to its standard deviation; (x_dim,), of a constant column 0."""
    rest = (x - found).square().nanmean(0)
    spread = (x - x.nanmean(0)).square().nanmean(0)
    return torch.where(spread > 0, rest / spread, torch.zeros_like(rest)).sqrt().nan_to_num()


@styled
def plane(groups: Mapping[str, Tensor], names: Sequence[str] | None = None, context: str = "") -> Figure:
    """Points of two columns, one colour a label.

    Args:
        groups: label -> points, shape (n, 2).
        names: of the two columns.
        context: a few words on data and model, put below the title.

    Returns:
        The figure.

    Raises:
        ValueError: there is nothing to draw, or points have not two finite columns.
    """
    points = {label: vectors(f"groups[{label!r}]", values, None) for label, values in groups.items()}
    if wrong := next((values for values in points.values() if values.shape[1] != 2), None) is not None or not points:
        raise ValueError(f"groups: expected points of two columns, got {wrong}")
    tint = {"data": INK} | colours(label for label in points if label != "data")
    legend = [Line2D([], [], linestyle="", marker="o", color=tint[label], label=label) for label in points]
    fig = sheet(5.5, "Data, and what the model makes of them", "Each mark is one datum.", context, legend)
    ax = fig.subplots()
    for label, values in points.items():
        size = 16 if len(values) <= 500 else max(2, 16 * math.sqrt(500 / len(values)))
        ax.scatter(values[:, 0].numpy(), values[:, 1].numpy(), s=size, alpha=0.5, linewidths=0, color=tint[label])
    first, second = names or ("column 1", "column 2")
    ax.set(xlabel=first, ylabel=second)
    ax.grid()
    return fig
