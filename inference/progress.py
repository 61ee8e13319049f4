"""Progress bars for long work, shown on a terminal only."""

from __future__ import annotations

import sys

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
    shown = show and console.is_terminal
    # Prints pass through the bar's console only where both go to the terminal: redirected output stays in its file.
    return Progress(
        *columns, console=console, disable=not shown, auto_refresh=False, redirect_stdout=sys.stdout.isatty()
    )
