"""Prior samples of each model: as images, or as lines where a datum is not an image."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from dlvm.experiments.figures.style import FAINT, INK, PALETTE, WIDTH, bare, colours, number, sheet, styled

GAP = 0.12  # white space between images, as a fraction of their side


@styled
def samples(
    images: Mapping[str, Tensor],
    image_shape: Sequence[int] | None = None,
    context: str = "",
    title: str = "",
    note: str = "Means of p(x | z) for z drawn from p(z).",
) -> Figure:
    """What each model holds possible: means of p(x | z) for draws of z from the prior, one panel a label.

    Args:
        images: label -> means, shape (n, x_dim).
        image_shape: ``(height, width)`` or ``(channels, height, width)``; ``None`` draws lines.
        context: a few words on data and model, put below the title.
        title: in the place of one that speaks of draws from the prior.
        note: what the images are.

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
        title or f"What {'each' if len(rows) > 1 else 'the'} model generates from its prior",
        note,
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


@styled
def writings(texts: Mapping[str, Sequence[str]], context: str = "") -> Figure:
    """Sequences as they are written, one column a label.

    Args:
        texts: label -> lines; more than a page's width of one is cut.
        context: a few words on data and model, put below the title.

    Returns:
        The figure.

    Raises:
        ValueError: if there is nothing to write.
    """
    if not texts or not all(texts.values()):
        raise ValueError("texts: expected at least one line for each label, got none; pass {label: lines}")
    most, wide = max(map(len, texts.values())), 90 // len(texts)
    fig = sheet(0.17 * most + 0.3, "What data and draws look like", "One sequence a line.", context)
    for ax, (label, lines) in zip(fig.subplots(1, len(texts), squeeze=False)[0], texts.items(), strict=True):
        ax.set_title(label)
        shown = "\n".join(line if len(line) <= wide else f"{line[: wide - 1]}\N{HORIZONTAL ELLIPSIS}" for line in lines)
        ax.text(0, 1, shown, va="top", size=9, family="monospace", transform=ax.transAxes)
        bare(ax)
    return fig


def vectors(name: str, values: Tensor, image_shape: Sequence[int] | None) -> Tensor:
    """``values`` on the CPU as (n, x_dim) in float32, once they are known to fit ``image_shape``.

    Raises:
        ValueError: if there are no rows, if ``values`` are not finite, or if they do not fit ``image_shape``.
    """
    values = torch.as_tensor(values).detach().to("cpu", torch.float32)
    if values.ndim != 2 or not values.numel():
        raise ValueError(
            f"{name}: expected shape (n, x_dim) with n >= 1, got {tuple(values.shape)}; flatten each datum"
        )
    if not values.isfinite().all():
        raise ValueError(f"{name}: expected finite values, got {int((~values.isfinite()).sum())} others; check the run")
    if image_shape is None:
        return values
    if len(image_shape) not in (2, 3) or (len(image_shape) == 3 and image_shape[0] not in (1, 3)):
        expected = "(height, width) or (channels, height, width) with 1 or 3 channels"
        raise ValueError(f"image_shape: expected {expected}, got {tuple(image_shape)}; pass None for other data")
    if math.prod(image_shape) != values.shape[1]:
        expected = f"{math.prod(image_shape)} values a datum for image_shape {tuple(image_shape)}"
        raise ValueError(f"{name}: expected {expected}, got {values.shape[1]}; change one of them")
    return values


def limits(groups: Iterable[Tensor]) -> tuple[float, float]:
    """The values shown as black and white: 0 and 1, unless some value lies outside."""
    groups = list(groups)
    return min(0.0, *(float(g.min()) for g in groups)), max(1.0, *(float(g.max()) for g in groups))


def mosaic(values: Tensor, image_shape: Sequence[int], columns: int, low: float, high: float) -> Tensor:
    """Images in rows of ``columns``, scaled to [0, 1], with white gaps between them.

    Args:
        values: the images, shape (n, x_dim).
        image_shape: ``(height, width)`` or ``(channels, height, width)``.
        columns: images in a row.
        low: the value of black.
        high: the value of white.

    Returns:
        The picture, shape (rows, columns, 3).
    """
    height, width = image_shape[-2:]
    tiles = ((values - low) / (high - low)).reshape(len(values), -1, height, width).expand(-1, 3, -1, -1)
    # Each pixel becomes a block, so that the gap can be thinner than a pixel of a small image.
    block = max(1, math.ceil(64 / height))
    gap = max(1, round(GAP * height * block / 2))
    tiles = tiles.repeat_interleave(block, -1).repeat_interleave(block, -2)
    rows = math.ceil(len(tiles) / columns)
    tiles = torch.cat([tiles, tiles.new_ones(rows * columns - len(tiles), *tiles.shape[1:])])
    tiles = torch.nn.functional.pad(tiles, (gap, gap, gap, gap), value=1.0)
    tiles = tiles.reshape(rows, columns, *tiles.shape[1:])  # (rows, columns, 3, height, width)
    return tiles.permute(0, 3, 1, 4, 2).reshape(rows * tiles.shape[3], columns * tiles.shape[4], 3)


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
