"""The one look of all figures: fonts, colours and the header, without pyplot and its global state."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib.style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.typing import LineStyleType

P = ParamSpec("P")
Row = Mapping[str, Any]  # a line of results: numbers and words by name
Look = dict[str, Any]  # how matplotlib is to draw something


WIDTH = 9.0  # inches; the report shows it 900 px wide, so 10 points become 14 px
PAD = 0.1  # inches around everything
LINE = 112  # characters of the smallest text on a line of that width
INK, FAINT = "#222222", "#6b6b6b"

# Okabe and Ito's palette, safe for colour-blind readers; yellow is left out because it vanishes on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
CLASSES = (*PALETTE, "#882255", "#999999", "#999933")  # ten, for classes that are also named in the figure
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[LineStyleType, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))

RC = {
    "font.family": "DejaVu Sans", "font.size": 10, "axes.titlesize": 10.5, "axes.labelsize": 10,
    "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 9.5, "legend.frameon": False,
    "text.color": INK, "axes.labelcolor": INK, "xtick.color": FAINT, "ytick.color": FAINT,
    "axes.edgecolor": "#b0b0b0", "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlelocation": "left", "grid.color": "#e4e4e4", "grid.linewidth": 0.8, "axes.axisbelow": True,
    "lines.linewidth": 1.8, "text.parse_math": False,
}  # fmt: skip

KEY: Look = {"borderaxespad": 0, "borderpad": 0.1, "columnspacing": 1.6, "handlelength": 2.0, "handletextpad": 0.6}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run a figure function under the shared style and leave matplotlib's settings as they were."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.style.context(["default", RC]):
            return draw(*args, **kwargs)

    return wrapper


def sheet(
    height: float,
    title: str,
    detail: str,
    context: str = "",
    legend: Sequence[Artist] = (),
    width: float = WIDTH,
) -> Figure:
    """An empty figure with its header: the message in bold, how to read it in grey, the legend.

    Args:
        height: inches left for the axes; the header comes on top of it.
        title: the message.
        detail: what is drawn and how to read it.
        context: a few words on data and model; on the line of the detail if they fit there.
        legend: handles with labels, laid out in rows below the detail.
        width: inches.
    """
    line = int(LINE * width / WIDTH)
    heading = textwrap.fill(title, int(0.75 * line))
    joined = f"{detail} {context}".strip()
    reading = joined if len(joined) <= line else "\n".join(textwrap.fill(part, line) for part in (detail, context))
    columns = _columns([str(handle.get_label()) for handle in legend], line)
    below = PAD + 0.26 * (1 + heading.count("\n"))
    keys = below + 0.19 * (1 + reading.count("\n")) + 0.05
    header = keys + (0.27 * -(-len(legend) // columns) if legend else 0) + 0.05
    total = height + header
    layout = ConstrainedLayoutEngine(rect=(0, 0, 1, height / total), w_pad=PAD, h_pad=0.06)
    fig = Figure(figsize=(width, total), layout=layout)
    left = PAD / width
    fig.text(left, 1 - PAD / total, heading, weight="bold", size=13, va="top", linespacing=1.15)
    fig.text(left, 1 - below / total, reading, color=FAINT, size=9.5, va="top", linespacing=1.25)
    if legend:
        anchor = (left, 1 - keys / total)
        key = fig.legend(handles=list(legend), loc="upper left", bbox_to_anchor=anchor, ncols=columns, **KEY)
        key.set_in_layout(False)
    return fig


def _columns(labels: Sequence[str], line: int) -> int:
    """The most columns whose labels, with their handles, fit on a line."""
    for columns in range(len(labels), 1, -1):
        rows = -(-len(labels) // columns)
        wide = [max(map(len, labels[i : i + rows])) for i in range(0, len(labels), rows)]
        if sum(wide) + 8 * len(wide) <= line:
            return columns
    return 1


def bare(ax: Axes) -> None:
    """Leave nothing of the axes but what is drawn inside them."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def colours(names: Iterable[str]) -> dict[str, str]:
    """One colour a distinct name, in order of appearance."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(dict.fromkeys(names))}


def number(value: float, digits: int | None = None) -> str:
    """A number as the tick labels write it, with a true minus sign; two digits, or three for a small one."""
    digits = (2 if abs(value) >= 0.1 else 3) if digits is None else digits
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")
