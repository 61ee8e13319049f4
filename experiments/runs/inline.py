"""A figure as a page holds it: drawn for a wide and for a narrow screen, in colours that follow light and dark."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import dataclass
from html import escape

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from dlvm.experiments.figures.chart import Chart
from dlvm.experiments.figures.style import Sheet

NARROW = 5.0  # inches; at 358 pixels ten points of it are ten pixels
SCREEN = "(max-width: 640px)"
MOST_COLUMNS = 3  # of axes side by side that a narrow screen has room for
MANY_MARKS = 1500  # from which on marks are a picture in the picture
LIGHT = {
    "ink": "#222222",
    "faint": "#6b6b6b",
    "edge": "#b0b0b0",
    "grid": "#e4e4e4",
    "page": "#ffffff",
    "black": "#000000",
}
DARK = {
    "ink": "#e6e9ed",
    "faint": "#a3abb5",
    "edge": "#59626c",
    "grid": "#2c3238",
    "page": "#16191d",
    "black": "#e6e9ed",
}


@dataclass(frozen=True)
class Inline:
    """A figure, ready for a page.

    Attributes:
        title: its message; empty if the words are drawn in it.
        detail: how to read it.
        caption: what is seen, and what follows from it; its text alternative too.
        wide: SVG.
        narrow: SVG for small screens; None where the wide one serves.
        charts: what the page draws itself instead, where it can run a script.
    """

    title: str
    detail: str
    caption: str
    wide: str
    narrow: str | None
    charts: tuple[Chart, ...] = ()


def inline(fig: Figure, caption: str) -> Inline:
    """The figure for a page; it is laid out anew for that, and not what it was after."""
    if not isinstance(fig, Sheet):
        return Inline("", "", caption, _svg(fig, themed=False), None)
    for ax in fig.axes:
        for marks in ax.collections:
            marks.set_rasterized(len(np.atleast_2d(marks.get_offsets())) > MANY_MARKS)
    fig.lay_out(fig.wide, header=False)
    wide, narrow = _svg(fig), None
    grids = [grid.ncols for ax in fig.axes if (grid := ax.get_gridspec())]
    if max(grids, default=1) <= MOST_COLUMNS:
        fig.lay_out(min(NARROW, fig.wide), header=False)
        narrow = _svg(fig)
    return Inline(fig.title, fig.detail, caption, wide, narrow, tuple(fig.charts))


def shown(figure: Inline) -> str:
    """The HTML of a figure; its drawing is seen where no script draws its charts."""
    source = f'<source media="{SCREEN}" srcset="{_uri(figure.narrow)}">' if figure.narrow else ""
    looks = " ".join(["drawn"] * bool(figure.narrow) + ["opaque"] * (not figure.title)) or "broad"
    drawn = f'<picture>{source}<img class="{looks}" alt="{escape(figure.caption)}" src="{_uri(figure.wide)}"></picture>'
    drawn = f'<p class="caption">{escape(figure.detail)}</p><div class="wide">{drawn}</div>'
    if figure.charts:
        charts = "".join(_chart(chart, figure.caption) for chart in figure.charts)
        drawn = f'{charts}<noscript>{drawn}</noscript><div class="static">{drawn}</div>'
    head = f"<h2>{escape(figure.title)}</h2>" if figure.title else ""
    return f"<figure>{head}{drawn}<figcaption>{escape(figure.caption)}</figcaption></figure>"


def _chart(chart: Chart, caption: str) -> str:
    data = json.dumps(chart.data()).replace("<", "\\u003c")
    boxes = "".join(
        f'<label><input type="checkbox"> {escape(text)}</label>' for text in (f"log {chart.x}", chart.below)
    )
    title = f"<h3>{escape(chart.title)}</h3>" if chart.title else ""
    note = f'<p class="caption">{escape(chart.note)}</p>' if chart.note else ""
    plot = f'<div class="up">{escape(chart.y)}</div><div class="plot" role="img" aria-label="{escape(caption)}"></div>'
    return f'<div class="chart">{title}{note}{boxes}{plot}<script type="application/json">{data}</script></div>'


def _svg(fig: Figure, themed: bool = True) -> str:
    """SVG whose words are outlines, so that no font is missing; its greys are variables that follow light and dark."""
    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "figure"}):
        fig.savefig(out, format="svg", dpi=150, metadata={"Date": None}, facecolor="none" if themed else None)
    text = re.sub(r"<\?xml.*?<svg", "<svg", out.getvalue(), count=1, flags=re.DOTALL)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    if not themed:
        return text
    for name, colour in LIGHT.items():
        text = re.sub(f"(fill|stroke): {colour}", rf"\1: var(--{name})", text)
    themes = f":root{{{_variables(LIGHT)}}}@media (prefers-color-scheme: dark){{:root{{{_variables(DARK)}}}}}"
    return re.sub("<defs>", f"<style>{themes}</style><defs>", text, count=1)


def _variables(theme: dict[str, str]) -> str:
    return ";".join(f"--{name}:{colour}" for name, colour in theme.items())


def _uri(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode('ascii')}"
