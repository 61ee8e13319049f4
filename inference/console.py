"""One-line notices on standard error: each kind said once in a process, or each time where each one counts."""

from __future__ import annotations

import logging
import re
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

logger = logging.getLogger("dlvm")
_said: set[str] = set()


def first_line(error: Exception) -> str:
    """What an error says, at most 200 characters of its first line."""
    return str(error).strip().split("\n")[0][:200]


def say(line: str) -> None:
    """Logs a line at level INFO under the name ``dlvm``, to standard error unless logging is set up otherwise.

    A line that differs from an earlier one by its numbers alone is not said again.
    """
    kind = re.sub(r"\d+", "", line)
    if kind in _said:
        return
    _said.add(kind)
    tell(line)


def tell(line: str) -> None:
    """The same, each time."""
    if not logger.handlers and not logging.getLogger().handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    logger.info(line)


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
