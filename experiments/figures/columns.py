"""Tables beside what a model makes of them: two columns as a plane, with clusters if any; more, one panel each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse
from torch import Tensor

from dlvm.experiments.figures.images import vectors
from dlvm.experiments.figures.style import FAINT, INK, PALETTE, bare, colours, number, sheet, styled

Clusters = tuple[Tensor, Tensor, Tensor, float]  # weights (K,), means (K, 2), covariances (K, 2, 2), log p(x)
ACROSS = 3  # panels of clusters
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


@styled
def ellipses(x: Tensor, found: Mapping[str, Clusters], context: str = "") -> Figure:
    """Data on the plane under the components that each way of fitting found.

    Args:
        x: shape (n, 2).
        found: way of fitting -> weights, means and covariances of its components, and its log p(x), nats per datum;
            one of the name "truth" is drawn black.
        context: a few words on the data, put below the title.

    Returns:
        The figure.

    Raises:
        ValueError: there is nothing to draw, or data or components do not lie on the plane.
    """
    if not found or x.dim() != 2 or x.shape[1] != 2 or any(loc.shape[-1] != 2 for _, loc, *_ in found.values()):
        raise ValueError(f"x and found: expected data and components on the plane, got data of shape {tuple(x.shape)}")
    values = {name: value for name, (*_, value) in found.items()}
    ways = [name for name in found if name != "truth"] or list(found)
    low, high = min(ways, key=values.__getitem__), max(ways, key=values.__getitem__)
    title = f"From {number(values[low])} nats per datum ({low}) to {number(values[high])} ({high})"
    detail = "Ellipses hold 39 % and 86 % of a component (one and two standard deviations); dots are their means."
    wide = min(ACROSS, len(found))
    rows = -(-len(found) // wide)
    fig = sheet(3.0 * rows, title, detail, context)
    axes = fig.subplots(rows, wide, squeeze=False, sharex=True, sharey=True).ravel()
    for ax, (name, (*clusters, value)) in zip(axes, found.items(), strict=False):
        ax.scatter(*x.T.numpy(), s=6, color=FAINT, alpha=0.35, linewidths=0)
        for weight, loc, covariance in zip(*(part.detach() for part in clusters), strict=True):
            draw_ellipse(ax, weight.item(), loc, covariance, INK if name == "truth" else PALETTE[1])
        ax.set_title(f"{name}, {number(value)}")
        bare(ax)
        ax.set_aspect("equal")
    margin = 0.05 * (x.amax(0) - x.amin(0))
    axes[0].set(xlim=_range(x[:, 0], margin[0]), ylim=_range(x[:, 1], margin[1]))
    for ax in axes[len(found) :]:
        ax.set_visible(False)
    return fig


def _range(values: Tensor, margin: Tensor) -> tuple[float, float]:
    return (values.min() - margin).item(), (values.max() + margin).item()


def draw_ellipse(ax: Axes, weight: float, loc: Tensor, covariance: Tensor, colour: str) -> None:
    """A component, of which little is to be seen where its weight is small."""
    sizes, directions = torch.linalg.eigh(covariance.double())
    angle = torch.rad2deg(torch.atan2(directions[1, 1], directions[0, 1])).item()
    strength = min(1.0, 0.15 + 4 * weight)
    middle = loc[0].item(), loc[1].item()
    for deviations in (1, 2):
        height, width = (2 * deviations * sizes.clamp_min(0).sqrt()).tolist()
        around = Ellipse(middle, width, height, angle=angle)
        around.set(facecolor="none", edgecolor=colour, linewidth=1.4, alpha=strength)
        ax.add_patch(around)
    ax.scatter(*middle, s=14, color=colour, alpha=strength, linewidths=0)
