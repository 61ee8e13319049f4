"""Progress bars for long work, shown on a terminal only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def bar(show: bool = True) -> Progress:
    """A progress bar with a free text, drawn to standard error from the calling thread, and only on a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not (show and console.is_terminal), auto_refresh=False)


def track(items: Iterable, text: str, show: bool = True) -> Iterator:
    """Yields the items under a bar."""
    total = len(items) if hasattr(items, "__len__") else None
    with bar(show) as progress:
        task = progress.add_task(text, total=total)
        for item in items:
            yield item
            progress.advance(task)
            progress.refresh()
