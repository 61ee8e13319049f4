"""Densities on the plane side by side: energies and what each family makes of them, and posteriors of a few data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

from dlvm.experiments.figures.posteriors import axes_of, levels, masses_of
from dlvm.experiments.figures.style import FAINT, INK, PALETTE, WIDTH, number, sheet, styled

INKS = LinearSegmentedColormap.from_list("inks", ["#ffffff", "#a9cfe6", PALETTE[0], "#00263d"])
POINTS_DRAWN = 1200


@styled
def energy_fits(
    axis: Tensor,
    targets: Mapping[str, Tensor],
    draws: Mapping[str, Mapping[str, Tensor]],
    kl: Mapping[str, Mapping[str, float]],
    context: str = "",
) -> Figure:
    """One row a target: its density, then a histogram of draws from each family with KL(q || p) above it.

    Args:
        axis: the values of z1 and of z2 on the targets' grid, shape (G,), equally spaced; bins are its cells.
        targets: name -> log density up to a constant at [a, b] for z = (axis[a], axis[b]), shape (G, G).
        draws: name -> {family: draws, shape (N, 2)}, the same families for all.
        kl: name -> {family: KL(q || p) in nats}.
        context: a few words put below the title.

    Raises:
        ValueError: a target has no draws or no KL, or a shape disagrees.
    """
    for name in targets:
        if not draws.get(name) or set(kl.get(name, ())) != set(draws[name]):
            raise ValueError(f"draws[{name!r}]: expected draws and a KL for each family; pass both for every target")
    families = list(next(iter(draws.values())))
    columns = 1 + len(families)
    width = max(WIDTH, 1.25 * columns)
    cell = width / columns
    mean = {family: sum(kl[name][family] for name in targets) / len(targets) for family in families}
    best = min(mean, key=mean.__getitem__)
    fig = sheet(
        len(targets) * (cell + 0.22) + 0.3,
        f"{best} comes closest: KL(q || p) = {number(mean[best])} nats" + (" on average" if len(targets) > 1 else ""),
        "Left the target, then draws of each family, in the target's colours; above each panel KL(q || p) in nats, the "
        "row's smallest in bold.",
        context,
        width=width,
    )
    panels = fig.subplots(len(targets), columns, squeeze=False)
    edges = _edges(axis)
    for row, (name, log_density) in zip(panels, targets.items(), strict=True):
        share = masses_of(f"targets[{name!r}]", log_density[None], (1, len(axis), len(axis)))[0]
        top, least = float(share.max()), min(kl[name].values())
        _image(row[0], share, edges, top)
        row[0].set_ylabel(name, rotation=0, labelpad=12, weight="bold")
        for ax, family in zip(row[1:], families, strict=True):
            _image(ax, _histogram(draws[name][family], edges), edges, top)
            smallest = kl[name][family] == least
            ax.set_title(number(kl[name][family]), weight="bold" if smallest else "normal", loc="center", size=9.5)
    for ax, label in zip(panels[0], ["target", *families], strict=True):
        ax.text(0.5, 1.24, label, transform=ax.transAxes, ha="center", va="bottom", size=9.5)
    return fig


def _edges(axis: Tensor) -> np.ndarray:
    """The borders of the cells around equally spaced points."""
    half = float(axis[1] - axis[0]) / 2
    return np.append(axis.double().numpy() - half, float(axis[-1]) + half)


def _histogram(z: Tensor, edges: np.ndarray) -> np.ndarray:
    """The share of all draws that falls in each cell, shape (G, G)."""
    z1, z2 = z.detach().cpu().double().numpy().T
    return np.histogram2d(z1, z2, bins=(edges, edges))[0] / len(z1)


def _image(ax: Axes, share: np.ndarray, edges: np.ndarray, top: float) -> None:
    box = (edges[0], edges[-1], edges[0], edges[-1])
    ax.imshow(share.T, origin="lower", extent=box, cmap=INKS, vmin=0, vmax=top, interpolation="bilinear")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(True)
    ax.spines[:].set_color("#d9d9d9")


@styled
def four_posteriors(
    names: Sequence[str],
    draws: Mapping[str, Tensor],
    truths: Mapping[str, tuple[tuple[Tensor, Tensor], Tensor]],
    values: Mapping[str, tuple[float, float]],
    references: Mapping[str, float],
    context: str = "",
    reach: float = 3.2,
) -> Figure:
    """One column a guide: draws from q(z | x) by datum, the true p(z | x) of its model below; then both bounds.

    Args:
        names: what each datum is called, n of them.
        draws: guide -> shape (n, N, 2).
        truths: guide -> (grid, log p(z | x)) of the model trained with it: grid a pair of (n, G), the rest (n, G, G).
        values: guide -> (ELBO, log p(x)), nats per datum.
        references: what is known of the problem -> nats per datum, drawn as vertical lines.
        context: a few words put below the title.
        reach: panels show |z1|, |z2| <= reach.

    Raises:
        ValueError: there are no guides, or a guide lacks its truth or its values.
    """
    if not draws or any(set(draws) != set(found) for found in (truths, values)):
        raise ValueError(f"draws, truths and values must name the same guides, at least one, got {list(draws)}")
    tint = [PALETTE[i % len(PALETTE)] for i in range(len(names))]
    legend = [Patch(facecolor=colour, label=name) for name, colour in zip(names, tint, strict=True)]
    best = max(values, key=lambda label: values[label][0])
    cell = min(2.6, WIDTH / len(draws))
    strip = 0.32 * len(draws) + 1.15
    fig = sheet(
        2 * cell + 0.4 + strip,
        f"{best} reaches the highest ELBO: {number(values[best][0], 3)} nats per datum",
        "Above, draws from q(z | x); in the middle, the true p(z | x) of the same model (50 and 95 % regions); below, "
        "what they are worth.",
        context,
        legend,
    )
    (upper,), (lower,) = fig.subfigures(2, 1, squeeze=False, height_ratios=[2 * cell + 0.4, strip])
    panels = upper.subplots(2, len(draws), squeeze=False, sharex=True, sharey=True)
    for column, label in zip(panels.T, draws, strict=True):
        _clouds(column[0], draws[label], tint)
        _regions(column[1], *truths[label], tint)
        column[0].set_title(label, loc="center")
        column[0].set(xlim=(-reach, reach), ylim=(-reach, reach))
        for ax in column:
            ax.set_box_aspect(1)
            ax.tick_params(length=2, pad=2, labelsize=8)
        column[1].set_xlabel("z₁")
    for ax, what in zip(panels[:, 0], ("q(z | x)\nz₂", "p(z | x)\nz₂"), strict=True):
        ax.set_ylabel(what, rotation=0, labelpad=22, va="center")
    _worth(lower.subplots(), values, references)
    return fig


def _clouds(ax: Axes, draws: Tensor, tint: Sequence[str]) -> None:
    for z, colour in zip(draws.detach().cpu(), tint, strict=True):
        ax.plot(*z[:POINTS_DRAWN].T.numpy(), ".", color=colour, markersize=2.2, alpha=0.45, markeredgewidth=0)


def _regions(ax: Axes, grid: tuple[Tensor, Tensor], log_density: Tensor, tint: Sequence[str]) -> None:
    z1, z2 = axes_of(grid, len(log_density))
    shares = masses_of("truths", log_density, tuple(log_density.shape))
    for i, colour in enumerate(tint):
        heights = levels(shares[i], (0.95, 0.5))
        for height, alpha in zip(heights, (0.3, 0.6), strict=True):
            region = [height, max(float(shares[i].max()), height * 1.001) * 1.01]
            ax.contourf(z1[i], z2[i], shares[i].T, levels=region, colors=[colour], alpha=alpha)


def _worth(ax: Axes, values: Mapping[str, tuple[float, float]], references: Mapping[str, float]) -> None:
    """A line a guide from its ELBO to its log p(x), between what is known."""
    for y, (elbo, log_px) in enumerate(values.values()):
        ax.plot([elbo, log_px], [y, y], color="#b0b0b0", linewidth=2.5, zorder=1)
        ax.plot(elbo, y, "o", color=PALETTE[0], zorder=2)
        ax.plot(log_px, y, "D", color=PALETTE[1], zorder=2)
        for value, side, shift in ((elbo, "right", -7), (log_px, "left", 7)):
            ax.annotate(
                number(value, 3), (value, y), (shift, 0), textcoords="offset points", ha=side, va="center", size=8.5,
                bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}, zorder=1.5,
            )  # fmt: skip
    for i, (text, value) in enumerate(references.items()):
        ax.axvline(value, color=INK, linewidth=1, linestyle=(0, (4, 2)), zorder=0)
        ax.annotate(
            f"{text}: {number(value, 3)}", (value, 1), (4, -1 - 11 * i), xycoords=("data", "axes fraction"),
            textcoords="offset points", size=8.5, color=FAINT, va="top",
        )  # fmt: skip
    everything = torch.tensor([*references.values(), *(v for pair in values.values() for v in pair)])
    low, high = everything.min().item(), everything.max().item()
    ax.set(xlim=(low - 0.05 * (high - low), high + 0.35 * (high - low)), ylim=(len(values) - 0.5, -1.9))
    ax.set_yticks(range(len(values)), list(values))
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("nats per datum")
    key = [
        Line2D([], [], marker="o", color=PALETTE[0], linestyle="", label="ELBO"),
        Line2D([], [], marker="D", color=PALETTE[1], linestyle="", label="log p(x), exact"),
    ]
    ax.legend(handles=key, loc="lower right", borderaxespad=0)
