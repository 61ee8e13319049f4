"""Where the bound of a guide loses: bars of the two gaps, datum by datum, and against the size of the encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.typing import LineStyleType
from torch import Tensor

from dlvm.experiments.figures.style import FAINT, INK, PALETTE, Row, number, sheet, styled

REQUIRED = ("label", "approximation", "approximation_se", "amortisation", "amortisation_se", "total", "total_se")
ROW = 0.5  # inches
FAMILY, ENCODER, TRAIN = PALETTE[0], PALETTE[1], PALETTE[4]
Rows = Sequence[Row]


@styled
def gap_bars(rows: Rows, context: str = "") -> Figure:
    """The inference gap of each guide as a bar, approximation first, then amortisation.

    Args:
        rows: one mapping per guide, with ``label``, and ``approximation``, ``amortisation`` and ``total`` in nats per
            datum, each with its standard error under ``..._se``.
        context: a few words on data and model, put below the title.

    Returns:
        The figure.

    Raises:
        ValueError: if there is no row, or one lacks a key.
    """
    _check(rows)
    legend = [
        Patch(facecolor=FAMILY, alpha=0.75, label="approximation: the family"),
        Patch(facecolor=ENCODER, alpha=0.75, label="amortisation: the encoder"),
        Line2D([], [], color=INK, linewidth=1.2, label="± 2 standard errors"),
    ]
    least = min(rows, key=lambda row: row["total"])
    title = f"{least['label']} has the smallest inference gap: {number(least['total'])} nats"
    detail = "log p(x) - L[q], divided at L[q*], the best of the family for each datum; at the end the total."
    fig = sheet(0.75 + ROW * len(rows), title, detail, context, legend)
    ax = fig.subplots()
    for y, row in enumerate(rows):
        family, encoder, total = (row[name] for name in ("approximation", "amortisation", "total"))
        ax.barh(y, family, height=0.55, color=FAMILY, alpha=0.75)
        ax.barh(y, encoder, left=family, height=0.55, color=ENCODER, alpha=0.75)
        for place, name, lift in ((family, "approximation", -0.12), (total, "amortisation", 0.12)):
            ax.errorbar(place, y + lift, xerr=2 * row[f"{name}_se"], color=INK, linewidth=1.2, capsize=2.5)
        end = max(family, total, 0) + 2 * max(row["approximation_se"], row["amortisation_se"])
        ax.annotate(number(total), (end, y), (6, 0), "data", "offset points", va="center", size=9)
    ax.set_yticks(range(len(rows)), [str(row["label"]) for row in rows])
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlim(right=1.12 * max(max(row["total"], row["approximation"]) for row in rows))
    ax.set_xlabel("nats per datum (less is better)")
    ax.grid(axis="x")
    return fig


@styled
def gap_scatter(values: Mapping[str, tuple[Tensor, Tensor]], context: str = "") -> Figure:
    """Approximation against amortisation gap of every datum, a panel per guide.

    Args:
        values: {guide: (approximation, amortisation)}, shape (num_data,) each, nats.
        context: a few words on data and model, put below the title.

    Raises:
        ValueError: if there is no guide.
    """
    if not values:
        raise ValueError("values: expected at least one guide, got none")
    shares = {label: (encoder > family).double().mean().item() for label, (family, encoder) in values.items()}
    most = max(shares, key=shares.__getitem__)
    title = f"With {most}, the encoder loses more than the family for {100 * shares[most]:.0f} % of the data"
    detail = "One dot a datum; above the line more is lost by the encoder than by the family."
    fig = sheet(3.1, title, detail, context)
    axes = fig.subplots(1, len(values), sharex=True, sharey=True, squeeze=False)[0]
    (left, right), (low, high) = (_range([pair[i] for pair in values.values()]) for i in (0, 1))
    for ax, (label, (family, encoder)) in zip(axes, values.items(), strict=True):
        ax.axline((0, 0), slope=1, color=FAINT, linewidth=1, zorder=1)
        ax.scatter(family, encoder, s=14, color=FAMILY, alpha=0.55, linewidth=0, zorder=3)
        ax.set(xlim=(left, right), ylim=(low, high))
        ax.set_title(f"{label}\nencoder worse for {100 * shares[label]:.0f} %")
        ax.set_xlabel("approximation, nats")
        ax.grid()
    axes[0].set_ylabel("amortisation, nats")
    return fig


@styled
def gaps_by_encoder(rows: Rows, context: str = "") -> Figure:
    """Both parts of the gap against the encoder, in the order of the rows; amortisation of training data if known.

    Args, Returns, Raises: as ``gap_bars``; ``train_amortisation`` and its ``_se`` are drawn where all rows have them.
    """
    _check(rows)
    lines: list[tuple[str, str, str, str, LineStyleType]] = [
        ("amortisation", "amortisation, test data", ENCODER, "o", "-"),
        ("train_amortisation", "amortisation, training data", TRAIN, "s", "--"),
        ("approximation", "approximation, test data", FAMILY, "^", "-"),
    ]
    lines = [line for line in lines if all(line[0] in row for row in rows)]
    legend = [
        Line2D([], [], color=colour, marker=marker, linestyle=dash, label=text)
        for _, text, colour, marker, dash in lines
    ]
    first, last = rows[0], rows[-1]
    numbers = f"{number(first['amortisation'])} to {number(last['amortisation'])}"
    title = f"From encoder {first['label']} to {last['label']}, the amortisation gap goes from {numbers} nats"
    fig = sheet(3.2, title, "Bars: ± 2 standard errors of sampling.", context, legend)
    ax = fig.subplots()
    for key, _, colour, marker, dash in lines:
        values, errors = [row[key] for row in rows], [2 * row[f"{key}_se"] for row in rows]
        ax.errorbar(range(len(rows)), values, errors, color=colour, marker=marker, linestyle=dash, capsize=2.5)
    ax.set_xticks(range(len(rows)), [str(row["label"]) for row in rows])
    ax.set_xlim(-0.4, len(rows) - 0.6)
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    ax.set_xlabel("hidden layers of the encoder")
    ax.set_ylabel("nats per datum (less is better)")
    ax.grid(axis="y")
    return fig


def _range(values: Sequence[Tensor]) -> tuple[float, float]:
    """Limits that hold zero and all values, with a margin."""
    least, most = min(0.0, *(v.min().item() for v in values)), max(1e-6, *(v.max().item() for v in values))
    margin = 0.05 * (most - least)
    return least - margin, most + margin


def _check(rows: Rows) -> None:
    if not rows:
        raise ValueError("rows: expected at least one, got none; check the runs")
    for i, row in enumerate(rows):
        if missing := [key for key in REQUIRED if key not in row]:
            raise ValueError(f"rows[{i}]: expected the keys {', '.join(REQUIRED)}; add {', '.join(missing)}")
