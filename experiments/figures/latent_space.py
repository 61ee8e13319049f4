"""Where the guide puts the data in a two-dimensional latent space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from torch import Tensor

from dlvm.experiments.figures.style import CLASSES, INK, MARKERS, sheet, styled


@styled
def latent_space(
    z_mean: Tensor, labels: Tensor | None = None, context: str = "", class_names: Sequence[str] | None = None
) -> Figure:
    """Posterior means, coloured by class and named where each class is centred.

    Args:
        z_mean: means of q(z | x), shape (N, 2).
        labels: the class of each datum, shape (N,), any values; ``None`` where there are no classes.
        context: a few words on data and model, put below the title.
        class_names: what class i is called, where labels count classes from 0; they name themselves unless told.

    Returns:
        The figure.

    Raises:
        ValueError: if ``z_mean`` is not (N, 2) with N >= 2 and finite, or if there is not one label a datum.
    """
    z = torch.as_tensor(z_mean).detach().to("cpu", torch.float64)
    if z.ndim != 2 or z.shape[1] != 2 or len(z) < 2 or not z.isfinite().all():
        raise ValueError(
            f"z_mean: expected finite (N, 2) with N >= 2, got {tuple(z.shape)}; pick two latent dimensions"
        )
    names = np.zeros(len(z), int) if labels is None else torch.as_tensor(labels).cpu().numpy()
    if names.shape != (len(z),):
        raise ValueError(
            f"labels: expected shape ({len(z)},), one a datum, got {names.shape}; pass None without classes"
        )
    classes = np.unique(names)
    called = {c: class_names[int(c)] if class_names else str(c) for c in classes}
    looks = {c: (CLASSES[i % len(CLASSES)], MARKERS[i // 7 % len(MARKERS)]) for i, c in enumerate(classes)}
    title, detail, legend = (
        f"Where the guide puts {len(z)} data",
        "Each mark is the mean of one q(z | x).",
        [],
    )
    if labels is not None:
        title = f"{_agreement(z, names):.0%} of the data have a nearest neighbour of their own class"
        detail += " Names stand at the median of each class."
        legend = [Line2D([], [], linestyle="", color=looks[c][0], marker=looks[c][1], label=called[c]) for c in classes]
    fig = sheet(6.2, title, detail, context, legend)
    ax = fig.subplots()
    size, alpha = (14, 0.75) if len(z) <= 2000 else (6, 0.5)
    for c in classes:
        mine = z[torch.from_numpy(names == c)].numpy()
        ax.scatter(mine[:, 0], mine[:, 1], s=size, color=looks[c][0], marker=looks[c][1], alpha=alpha, linewidths=0)
    if labels is not None:
        for c in classes:
            centre = np.median(z[torch.from_numpy(names == c)].numpy(), axis=0)
            halo = [withStroke(linewidth=4, foreground="white")]
            ax.text(
                centre[0],
                centre[1],
                called[c],
                color=INK,
                size=15,
                weight="bold",
                ha="center",
                va="center",
                path_effects=halo,
            )
    ax.set(xlabel="mean of z₁ under q(z | x)", ylabel="mean of z₂ under q(z | x)", aspect="equal")
    ax.grid()
    return fig


def _agreement(z: Tensor, names: np.ndarray) -> float:
    """The share of points whose nearest other point has the same name; by chunks, to bound the memory."""
    nearest = []
    for start in range(0, len(z), 1000):
        distance = torch.cdist(z[start : start + 1000], z)
        rows = torch.arange(len(distance))
        distance[rows, rows + start] = torch.inf
        nearest.append(distance.argmin(1))
    return float((names[torch.cat(nearest).numpy()] == names).mean())
