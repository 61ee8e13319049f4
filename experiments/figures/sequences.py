"""Sequences side by side: as a roll, dark where a number is high, or as curves over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from dlvm.experiments.figures.style import INK, PALETTE, sheet, styled

CURVES = 4  # numbers of a step that are drawn as curves; of more, these vary most
INK_MAP = "Greys"


@styled
def sequences(
    groups: Mapping[str, tuple[Tensor, Tensor]],
    names: Sequence[str] | None = None,
    title: str = "Sequences",
    context: str = "",
) -> Figure:
    """Sequences of each label in a line, up to their lengths.

    Numbers that all lie between 0 and 1, and are more than a few at a step, make a roll: one line a number, dark where
    it is 1. All others are curves over time, one a number, of those that vary most.

    Args:
        groups: label -> sequences, shape (n, steps, x_dim), and their lengths, shape (n,).
        names: of the numbers of a step.
        title: the message.
        context: a few words on data and model, put below the title.

    Returns:
        The figure.

    Raises:
        ValueError: there is nothing to draw, or groups do not have as many sequences of as many numbers.
    """
    parts = {label: checked(label, *part) for label, part in groups.items()}
    sizes = {(len(x), x[0].shape[1]) for x in parts.values()}
    if len(sizes) != 1:
        raise ValueError(f"groups: expected as many sequences of as many numbers in each, got {sorted(sizes)}")
    ((count, width),) = sizes
    every = torch.cat([row for x in parts.values() for row in x])
    seen = every[~every.isnan()]
    roll = width > CURVES and bool(((seen >= 0) & (seen <= 1)).all())
    chosen = lines_of(every) if roll else most_varied(every)
    labels = [str(d) if names is None else names[d] for d in chosen]
    legend = [] if roll else [Line2D([], [], color=PALETTE[i], label=label) for i, label in enumerate(labels)]
    some = f", those {CURVES} of {width} that vary most" if len(chosen) < width and not roll else ""
    detail = "A line for each number, dark where it is high" if roll else f"A curve for each number of a step{some}"
    fig = sheet(2.1 * len(parts), title, f"{detail}; time runs to the right.", context, legend)
    axes = fig.subplots(len(parts), count, squeeze=False, sharex="col", sharey=True)
    for line, (label, rows) in zip(axes, parts.items(), strict=True):
        for ax, row in zip(line, rows, strict=True):
            (_roll if roll else _curves)(ax, row[:, chosen])
        line[0].set_title(label)
        if roll and names is not None:
            line[0].set_yticks([0, len(chosen) - 1], [labels[0], labels[-1]])
    for ax in axes[-1]:
        ax.set_xlabel("time step")
    return fig


def checked(label: str, x: Tensor, lengths: Tensor) -> list[Tensor]:
    """Each sequence up to its length, on the CPU.

    Raises:
        ValueError: there is none, or shapes do not go together.
    """
    x, lengths = torch.as_tensor(x).detach().to("cpu", torch.float32), torch.as_tensor(lengths).cpu()
    fit = x.ndim == 3 and x.numel() and lengths.shape == (len(x),)
    if not fit or not 1 <= lengths.min() <= lengths.max() <= len(x[0]):
        raise ValueError(
            f"groups[{label!r}]: expected sequences (n, steps, x_dim) and lengths (n,) from 1 to steps, got "
            f"{tuple(x.shape)} and {lengths.tolist()}"
        )
    return [row[:length] for row, length in zip(x, lengths.tolist(), strict=True)]


def lines_of(every: Tensor) -> list[int]:
    """The numbers from the first to the last that is ever above 0."""
    used = (every.nan_to_num() > 0).any(0).nonzero()[:, 0].tolist()
    return list(range(used[0], used[-1] + 1)) if used else list(range(every.shape[1]))


def most_varied(every: Tensor) -> list[int]:
    """The few numbers that vary most, in their own order."""
    filled = torch.where(every.isnan(), every.nanmean(0), every).nan_to_num()
    return sorted(filled.var(0, correction=0).argsort(descending=True)[:CURVES].tolist())


def _roll(ax: Axes, row: Tensor) -> None:
    ax.imshow(row.T.numpy(), cmap=INK_MAP, vmin=0, vmax=1, aspect="auto", origin="lower", interpolation="nearest")
    ax.tick_params(colors=INK)


def _curves(ax: Axes, row: Tensor) -> None:
    steps = range(len(row))
    for i, values in enumerate(row.T):
        ax.plot(steps, values.numpy(), color=PALETTE[i], linewidth=1.2, marker="o" if len(row) == 1 else None)
