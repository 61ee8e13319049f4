"""Predictions beside the truth: classes by their probability, numbers with their intervals, images of decoders."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dlvm.experiments.figures.images import mosaic, vectors
from dlvm.experiments.figures.style import FAINT, INK, PALETTE, Row, bare, number, sheet, styled

SHOWN = 300  # intervals that can be told apart


@styled
def reliability(confidence: Tensor, right: Tensor, counts: Tensor, context: str = "") -> Figure:
    """Share of right predictions against their probability, a bin each, above how many data a bin holds.

    Args:
        confidence: mean probability of the most probable class, of each bin, shape (bins,).
        right: share of its data for which that class is the true one, shape (bins,).
        counts: how many data it holds, shape (bins,).
        context: a few words on data and model, put below the title.

    Returns:
        The figure.

    Raises:
        ValueError: the shapes differ, or there is no bin.
    """
    shapes = {tuple(part.shape) for part in (confidence, right, counts)}
    if len(shapes) > 1 or not confidence.numel():
        raise ValueError(f"right: expected one number for each of some bins, got shapes {sorted(shapes)}")
    share, total = counts.double() / counts.sum(), float((counts.double() * right).sum() / counts.sum())
    off = float((share * (right - confidence).abs()).sum())
    title = f"{100 * total:.1f} % are right; a probability is off by {100 * off:.1f} points on average"
    detail = "The share that is right against the probability of that class, with two standard errors of chance."
    fig = sheet(4.6, title, detail, context)
    upper, lower = fig.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8)
    chance = 2 * (confidence * (1 - confidence) / counts).sqrt()
    upper.errorbar(confidence.numpy(), right.numpy(), chance.numpy(), marker="o", linewidth=1, color=PALETTE[0])
    upper.set(ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.03))
    lower.bar(confidence.numpy(), share.numpy(), width=0.03, color=PALETTE[0])
    lower.set(xlabel="probability of the most probable class", ylabel="share of data")
    return fig


@styled
def predictions(y: Tensor, mean: Tensor, sd: Tensor, name: str = "y", context: str = "") -> Figure:
    """Numbers against what was predicted of them, with the central 90 % intervals.

    Args:
        y: the numbers, shape (n,).
        mean, sd: of their Gaussian predictions, shape (n,).
        name: of the number.
        context: a few words on data and model, put below the title.

    Returns:
        The figure.

    Raises:
        ValueError: the shapes differ, or a prediction is not finite.
    """
    parts: Sequence[Tensor] = [torch.as_tensor(part).detach().cpu().double() for part in (y, mean, sd)]
    shapes = {tuple(part.shape) for part in parts}
    if len(shapes) > 1 or parts[0].dim() != 1 or not all(bool(part.isfinite().all()) for part in parts):
        raise ValueError(f"mean: expected finite numbers, one for each of y, got shapes {sorted(shapes)}")
    y, mean, sd = parts
    half = 1.6449 * sd
    inside = ((y - mean).abs() <= half).double().mean().item()
    left = ((y - mean).square().mean().sqrt() / y.std()).item()
    title = f"{name} is known to {number(left)} of its standard deviation"
    detail = f"Prediction (upwards) and its 90 % interval, which holds {100 * inside:.0f} % of {len(y)}; the line is y."
    fig = sheet(4.2, title, detail, context)
    ax = fig.subplots()
    few = slice(0, SHOWN)
    ax.errorbar(
        y[few].numpy(), mean[few].numpy(), half[few].numpy(), fmt="o", markersize=3, linewidth=0.6, alpha=0.6,
        color=PALETTE[0],
    )  # fmt: skip
    low, high = y[few].min().item(), y[few].max().item()
    ax.plot([low, high], [low, high], color=INK, linewidth=0.8)
    ax.set(xlabel=name, ylabel="prediction")
    return fig


@styled
def decoders(x: Tensor, rows: Sequence[Row], image_shape: Sequence[int] | None, context: str = "") -> Figure:
    """What decoders make of the same data and of draws of the prior: means of p(x | z), and a draw of each.

    Args:
        x: the data, shape (n, x_dim).
        rows: for each decoder ``label``, ``strips`` of four tensors (n, x_dim), the mean and a draw at data, and at z
            of the prior, and the numbers ``bits_per_dim``, ``decoder_sd``, ``residual`` and
            ``sharpness``.
        image_shape: ``(height, width)`` or ``(channels, height, width)``; ``None`` draws lines as images of one row.
        context: a few words on data and model, put below the title.

    Returns:
        The figure.

    Raises:
        ValueError: there are no rows, or something does not fit ``image_shape``.
    """
    if not rows:
        raise ValueError("rows: expected at least one decoder, got none; pass {'label': ..., 'strips': ...}")
    shape = (1, x.shape[1]) if image_shape is None else tuple(image_shape)
    least = min(rows, key=lambda row: row["bits_per_dim"])
    title = f"{least['label']} needs the fewest bits, {number(least['bits_per_dim'], 3)} per dimension"
    if len(rows) > 1:
        title += f"; the means of {min(rows, key=lambda row: row['sharpness'])['label']} are the blurriest"
    detail = "sd: noise of p(x | z); error: of its mean. Where sd exceeds error, z need not tell details."
    heads = ("reconstruction, mean", "and a draw", "z of the prior, mean", "and a draw")
    count, width = len(x), 5.4
    side = (width - 0.4) / (4 * count + 1.5)
    high = side * shape[-2] / shape[-1] + 0.48
    fig = sheet(high * (len(rows) + 1) + 0.1, title, detail, context, width=width)
    axes = fig.subplots(len(rows) + 1, 4, squeeze=False)
    for j, ax in enumerate(axes[0]):
        bare(ax)
        ax.set_anchor("NW")
        if j == 0:
            ax.imshow(mosaic(vectors("x", x, shape), shape, count, 0.0, 1.0).numpy(), interpolation="nearest")
            ax.text(0, 1.12, "data", transform=ax.transAxes, size=9.5, color=INK).set_in_layout(False)
        else:
            ax.set_axis_off()
    for line, row in zip(axes[1:], rows, strict=True):
        said = (
            f"{row['label']}: {row['bits_per_dim']:.2f} bits, sd {row['decoder_sd']:.3f}, error {row['residual']:.3f}"
        )
        for j, (ax, strip) in enumerate(zip(line, row["strips"], strict=True)):
            values = vectors(f"strips[{j}]", strip, shape).clamp(0, 1)
            ax.imshow(mosaic(values, shape, count, 0.0, 1.0).numpy(), interpolation="nearest")
            bare(ax)
            ax.set_anchor("NW")
            ax.text(0, -0.12, heads[j], transform=ax.transAxes, va="top", size=8, color=FAINT).set_in_layout(False)
        line[0].text(0, 1.12, said, transform=line[0].transAxes, size=9.5, color=INK).set_in_layout(False)
    return fig
