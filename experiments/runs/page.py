"""The self-contained HTML page of a run, light or dark like the system; what the page says is the caller's."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from urllib.parse import quote

from dlvm.experiments.runs.inline import Inline, shown
from dlvm.experiments.runs.report import Link, Table, value_of

SENTENCE = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)\s+")
LONG = 40  # characters, beyond which a cell wraps
ASSETS = ("page.css", "page.js", "uPlot.min.css", "uPlot.iife.min.js")


@dataclass(frozen=True)
class Page:
    """The report of a run.

    Attributes:
        title: the question the run answers.
        intro: what was done; empty lines separate paragraphs.
        tables: shown below the introduction; with several rows, a click on a heading sorts them.
        figures: in this order.
        details: how to repeat the run: name -> value.
        verdict: the answer, shown first: its first sentence as the headline, what comes behind "Next:" as advice.
        following: the command that follows the advice, to be copied; shown below it.
    """

    title: str
    intro: str
    tables: Sequence[Table]
    figures: Sequence[Inline]
    details: Mapping[str, object]
    verdict: str | None = None
    following: str | None = None

    def html(self) -> str:
        """One document that fetches nothing; all text is escaped."""
        parts = [f"<h1>{escape(self.title)}</h1>"]
        parts += [_verdict(self.verdict, self.following)] if self.verdict else []
        parts += [f"<p>{escape(text.strip())}</p>" for text in self.intro.split("\n\n") if text.strip()]
        parts += [_table(table) for table in self.tables]
        parts += [shown(figure) for figure in self.figures]
        parts += [_details(self.details)] if self.details else []
        css, script, chart_css, chart_script = map(_asset, ASSETS)
        if any(figure.charts for figure in self.figures):
            css, script = f"{chart_css}\n{css}", f"{chart_script}\n{script}"
        return SHELL.format(title=escape(self.title), css=css, body="\n".join(parts), script=script)


def _details(details: Mapping[str, object]) -> str:
    lines = (f"<tr><th>{escape(str(n))}</th><td>{escape(str(value))}</td></tr>" for n, value in details.items())
    return f'<h2>How to repeat it</h2><table class="details"><tbody>{"".join(lines)}</tbody></table>'


def _verdict(text: str, following: str | None) -> str:
    said, _, advice = text.partition("Next: ")
    first, *rest = [sentence for sentence in SENTENCE.split(said.strip()) if sentence] or [""]
    found = f"<p>{escape(first)}</p>"
    found += "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in rest) + "</ul>" if rest else ""
    found += f'<p class="next"><strong>Next:</strong> {escape(advice)}</p>' if advice else ""
    found += f"<pre><code>{escape(following)}</code></pre>" if following else ""
    return f'<div class="verdict">{found}</div>'


def _table(table: Table) -> str:
    longest = [max((len(row[j]) for row in table.text), default=0) for j in range(len(table.columns))]
    words = [' class="words"' if long > LONG else "" for long in longest]
    kinds = [' class="number"' if numeric else kind for numeric, kind in zip(table.numeric, words, strict=True)]
    several = len(table.rows) > 1
    wrap = "<button>{}</button>" if several else "{}"
    heads = (f"<th{kind}>{wrap.format(escape(c))}</th>" for kind, c in zip(kinds, table.columns, strict=True))
    lines = []
    for i, row in enumerate(table.text):
        cells = []
        for j, (kind, cell) in enumerate(zip(kinds, row, strict=True)):
            held, text = table.rows[i][j], escape(cell)
            text = f"<strong>{text}</strong>" if (i, j) in table.best else text
            text = f'<a href="{quote(held.href)}">{text}</a>' if isinstance(held, Link) else text
            number = value_of(held)
            key = cell if not table.numeric[j] else "" if math.isnan(number) else repr(number)
            label = f' data-label="{escape(table.columns[j])}" data-value="{escape(key)}"'
            cells.append(f"<td{kind}{label}>{text}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    head, body = f"<thead><tr>{''.join(heads)}</tr></thead>", "\n".join(lines)
    caption = f'<p class="caption">{escape(table.caption)}</p>'
    label = f'class="{"many" if several else "single"}" aria-label="{escape(table.caption)}"'
    return f'{caption}<div class="wide"><table {label}>{head}\n<tbody>{body}</tbody></table></div>'


@cache
def _asset(name: str) -> str:
    return (files("dlvm.experiments.runs") / "assets" / name).read_text("utf-8")


SHELL = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{css}</style>
</head>
<body><main>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""
