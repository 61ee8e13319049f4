"""The posterior of single data on a grid over a two-dimensional latent, and each guide against it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

from dlvm.experiments.figures.images import limits, mosaic, vectors
from dlvm.experiments.figures.style import INK, PALETTE, WIDTH, bare, number, sheet, styled

MASSES = (
    0.95,
    0.75,
    0.5,
    0.25,
)  # filled regions; the outlines of the true posterior are the 95 % and the 50 % ones


@styled
def posteriors(
    x: Tensor,
    grid: Tensor | tuple[Tensor, Tensor],
    true_log_density: Tensor,
    guides: Mapping[str, Tensor],
    kl: Mapping[str, Tensor] | None = None,
    image_shape: Sequence[int] | None = None,
    context: str = "",
    message: str = "",
) -> Figure:
    """One row a datum: the datum, its true posterior p(z | x), then each guide against its outline.

    Regions are those of highest density: the 50 % region is the smallest that holds half of the mass.

    Args:
        x: the data, shape (n, x_dim); entries that are NaN are gaps in a line, and black in an image.
        grid: the values of z1 and of z2, each of shape (G,) or, for a window of its own around each datum,
            (n, G); a single tensor serves both axes. Points are equally spaced.
        true_log_density: log p(x, z) or log p(z | x), shape (n, G, G); ``[i, a, b]`` is at
            z = (z1[a], z2[b]). A constant per datum does not matter.
        guides: label -> log q(z | x) at the same points, shape (n, G, G).
        kl: label -> KL(q || p) in nats, shape (n,), written above each panel.
        image_shape: ``(height, width)`` or ``(channels, height, width)``; ``None`` draws the datum as a line.
        context: a few words on data and model, put below the title.
        message: the title; unless told, which guide has the smallest mean KL on these data.

    Returns:
        The figure.

    Raises:
        ValueError: if a shape disagrees, if ``guides`` is empty, or if a density is zero everywhere.
    """
    x = torch.as_tensor(x).detach().to("cpu", torch.float32)
    data = vectors("x", x.nan_to_num(0.0, math.inf, -math.inf), image_shape)
    if image_shape is None:
        data = data.where(~x.isnan(), math.nan)
    z1, z2 = axes_of(grid, len(data))
    shape = (len(data), z1.shape[1], z2.shape[1])
    if not guides:
        raise ValueError("guides: expected at least one label, got none; pass {label: log q(z | x)}")
    for label, values in (kl or {}).items():
        got = tuple(torch.as_tensor(values).shape)
        if label not in guides or got != (len(data),):
            expected = f"({len(data)},) for a label among {list(guides)}"
            raise ValueError(f"kl[{label!r}]: expected shape {expected}, got {got}; one KL a datum")
    truth = masses_of("true_log_density", true_log_density, shape)
    fits = {label: masses_of(f"guides[{label!r}]", values, shape) for label, values in guides.items()}
    tint = {label: PALETTE[i % (len(PALETTE) - 1)] for i, label in enumerate(fits)}

    columns = 2 + len(fits)
    width = max(WIDTH, 1.6 * columns)
    cell = width / columns
    legend = [
        Patch(facecolor="#9a9a9a", label="filled: the panel's density (25, 50, 75, 95 %)"),
        Line2D([], [], color=INK, linewidth=1.3, label="outline: true posterior (50, 95 %)"),
    ]
    detail = "One row a datum" + ("; above each panel KL(q || p) in nats." if kl else ".")
    fig = sheet(len(data) * cell * 1.02 + 0.3, message or _message(kl, fits), detail, context, legend, width)
    axes = fig.subplots(len(data), columns, squeeze=False, width_ratios=[0.75, *[1] * (columns - 1)])
    for i, row in enumerate(axes):
        _datum(row[0], data[i], image_shape, data)
        row[0].set_title("datum x" if i == 0 else "")
        panels = {
            "true posterior": (truth, "#3c3c3c"),
            **{label: (fits[label], tint[label]) for label in fits},
        }
        for ax, (label, (density, colour)) in zip(row[1:], panels.items(), strict=True):
            _panel(ax, z1[i], z2[i], density[i], truth[i], colour)
            note = f"KL {number(float(kl[label][i]))}" if kl and label in kl else ""
            heading = textwrap.fill(label, int(10 * cell))
            ax.set_title(f"{heading}\n{note}".strip() if i == 0 else note)
            ax.tick_params(labelleft=ax is row[1], length=2, pad=2, labelsize=8)
            if i == len(axes) - 1:
                ax.set_xlabel("z₁")
        row[1].set_ylabel("z₂", rotation=0, labelpad=9)
    return fig


def _panel(ax: Axes, z1: np.ndarray, z2: np.ndarray, density: np.ndarray, truth: np.ndarray, colour: str) -> None:
    ramp = LinearSegmentedColormap.from_list("ramp", [_pale(colour, 0.78), _pale(colour, 0.05)])
    fill = _heights(density, MASSES)
    ax.contourf(z1, z2, density.T, levels=[*fill, np.inf], colors=[ramp(i / 3) for i in range(len(fill))])
    ax.contour(z1, z2, truth.T, levels=_heights(truth, (0.95, 0.5)), colors=INK, linewidths=(0.9, 1.3))
    ax.set(xlim=(z1[0], z1[-1]), ylim=(z2[0], z2[-1]))
    ax.set_box_aspect(1)
    ax.locator_params(nbins=4)


def _heights(density: np.ndarray, masses: Sequence[float]) -> list[float]:
    """Strictly increasing contour levels; a region that is one grid point is drawn half a cell wide."""
    top = density.max()
    return sorted({height if height < top else top / 2 for height in levels(density, masses)})


def _pale(colour: str, amount: float) -> tuple[float, ...]:
    return tuple(c + (1 - c) * amount for c in to_rgb(colour))


def _datum(ax: Axes, datum: Tensor, image_shape: Sequence[int] | None, data: Tensor) -> None:
    if image_shape is None:
        there = data[~data.isnan()]
        ax.plot(datum.numpy(), color=INK, linewidth=1.2)
        if len(there):
            ax.set_ylim(float(there.min()), float(there.max()) + 1e-9)
        ax.set(xticks=[], box_aspect=1)
        ax.tick_params(length=2, pad=2, labelsize=8)
    else:
        ax.imshow(mosaic(datum[None], image_shape, 1, *limits([data])).numpy(), interpolation="nearest")
        bare(ax)


def _message(kl: Mapping[str, Tensor] | None, fits: Mapping[str, np.ndarray]) -> str:
    means = {label: float(torch.as_tensor(kl[label]).mean()) for label in fits if kl and label in kl}
    if not means:
        return "How each guide covers the true posterior"
    best = min(means, key=means.__getitem__)
    if len(fits) == 1:
        return f"The guide is {number(means[best])} nats from the true posterior, KL(q || p), on average"
    return f"{best} comes closest to the true posterior: KL(q || p) = {number(means[best])} nats on average"


def axes_of(grid: Tensor | tuple[Tensor, Tensor], n: int) -> tuple[np.ndarray, np.ndarray]:
    """The values along each axis for each datum, twice (n, G).

    Raises:
        ValueError: if ``grid`` is neither (G,) nor (n, G), nor a pair of such.
    """
    pair = grid if isinstance(grid, tuple | list) else (grid, grid)
    values = [torch.as_tensor(axis).detach().to("cpu", torch.float64) for axis in pair]
    if len(values) != 2 or any(
        v.ndim not in (1, 2) or v.shape[-1] < 2 or v.shape[:-1] not in ((), (n,)) for v in values
    ):
        got = ", ".join(str(tuple(v.shape)) for v in values)
        raise ValueError(
            f"grid: expected shape (G,) or ({n}, G), or a pair of such, got {got}; one row of values a datum"
        )
    z1, z2 = (v.expand(n, -1).numpy() for v in values)
    return z1, z2


def masses_of(name: str, log_density: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """The share of the mass on the grid that falls on each point, shape (n, G, G).

    Raises:
        ValueError: if ``log_density`` has another shape, holds NaN, or is zero everywhere for some datum.
    """
    values = torch.as_tensor(log_density).detach().to("cpu", torch.float64)
    if tuple(values.shape) != shape:
        raise ValueError(f"{name}: expected shape {shape}, the data by the grid, got {tuple(values.shape)}; see grid")
    if values.isnan().any() or not values.flatten(1).amax(1).isfinite().all():
        raise ValueError(f"{name}: expected log densities, some finite for each datum, got NaN or none; widen the grid")
    return values.flatten(1).softmax(1).reshape(shape).numpy()


def levels(density: np.ndarray, masses: Sequence[float]) -> list[float]:
    """The heights above which a density on a grid holds each share of its mass.

    Args:
        density: masses or densities on an equally spaced grid, any shape.
        masses: shares in (0, 1), from large to small.

    Returns:
        One height per share; the set of points at least as high is the smallest that holds the share.
    """
    ranked = np.sort(density, axis=None)[::-1]
    held = np.cumsum(ranked) / ranked.sum()
    return [float(ranked[min(int(np.searchsorted(held, mass)), ranked.size - 1)]) for mass in masses]
