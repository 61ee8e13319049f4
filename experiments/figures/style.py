"""The one look of all figures: fonts, colours and the header, without pyplot and its global state."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec, cast

import matplotlib.style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.typing import LineStyleType

from dlvm.experiments.figures.chart import Chart

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


class Sheet(Figure):
    """A figure with a header: the message in bold, how to read it in grey, the legend.

    Args:
        height: inches left for the axes; the header comes on top of it.
        title: the message.
        detail: what is drawn and how to read it.
        legend: handles with labels.
        width: inches.

    Attributes:
        charts: the same as numbers, for a page that draws it itself; empty where none can.
    """

    def __init__(self, height: float, title: str, detail: str, legend: Sequence[Artist], width: float):
        super().__init__(layout=ConstrainedLayoutEngine(w_pad=PAD, h_pad=0.06))
        self.height, self.title, self.detail, self.handles, self.wide = height, title, detail, list(legend), width
        self.charts: list[Chart] = []
        self._header: list[Artist] = []

    def lay_out(self, width: float, header: bool = True) -> None:
        """Puts everything in its place at this width, in inches; without the header only its legend is left."""
        for artist in self._header:
            artist.remove()
        line, self._header = int(LINE * width / WIDTH), []
        wraps = [textwrap.fill(self.title, int(0.75 * line)), _filled(self.detail, line)] if header else ["", ""]
        columns = _columns([str(handle.get_label()) for handle in self.handles], line)
        below = PAD + 0.26 * (1 + wraps[0].count("\n")) * header
        keys = below + (0.19 * (1 + wraps[1].count("\n")) + 0.05) * header
        top = keys + (0.27 * -(-len(self.handles) // columns) if self.handles else 0) + 0.05
        height = self.height * (width / self.wide if self._fixed_shape else 1)
        total = height + top
        self.set_size_inches(width, total)
        cast(ConstrainedLayoutEngine, self.get_layout_engine()).set(rect=(0, 0, 1, height / total))
        left = PAD / width
        if header:
            at = (left, 1 - PAD / total), (left, 1 - below / total)
            self._header += [self.text(*at[0], wraps[0], weight="bold", size=13, va="top", linespacing=1.15)]
            self._header += [self.text(*at[1], wraps[1], color=FAINT, size=9.5, va="top", linespacing=1.25)]
        if self.handles:
            place: Look = {"loc": "upper left", "bbox_to_anchor": (left, 1 - keys / total), "ncols": columns}
            with matplotlib.style.context(["default", RC]):
                key = self.legend(handles=self.handles, **place, **KEY)
            key.set_in_layout(False)
            self._header.append(key)

    @property
    def _fixed_shape(self) -> bool:
        """Whether some axes are as high as they are wide, or show a picture."""
        return any(ax.get_aspect() != "auto" or ax.get_box_aspect() is not None for ax in self.axes)


def sheet(
    height: float,
    title: str,
    detail: str,
    context: str = "",
    legend: Sequence[Artist] = (),
    width: float = WIDTH,
) -> Sheet:
    """An empty figure with its header: the message in bold, how to read it in grey, the legend.

    Args:
        height: inches left for the axes; the header comes on top of it.
        title: the message.
        detail: what is drawn and how to read it.
        context: a few words on data and model; on the line of the detail if they fit there.
        legend: handles with labels, laid out in rows below the detail.
        width: inches.
    """
    fits = len(f"{detail} {context}") <= int(LINE * width / WIDTH)
    fig = Sheet(height, title, f"{detail}{' ' if fits else chr(10)}{context}".strip(), legend, width)
    fig.lay_out(width)
    return fig


def _filled(text: str, line: int) -> str:
    return "\n".join(textwrap.fill(part, line) for part in text.split("\n"))


def _columns(labels: Sequence[str], line: int) -> int:
    """The most columns whose labels, with their handles, fit on a line."""
    for columns in range(len(labels), 1, -1):
        rows = -(-len(labels) // columns)
        wide = [max(map(len, labels[i : i + rows])) for i in range(0, len(labels), rows)]
        if sum(wide) + 8 * len(wide) <= line:
            return len(wide)
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
