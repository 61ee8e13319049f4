"""Predictions beside the truth: how often classes are right, by their probability; numbers, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dlvm.experiments.figures.style import FAINT, INK, PALETTE, number, sheet, styled

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
    detail = "The share that is right against the probability of the most probable class; on the line they agree."
    fig = sheet(4.6, title, detail, context)
    upper, lower = fig.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8)
    upper.plot(confidence.numpy(), right.numpy(), marker="o", color=PALETTE[0])
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
