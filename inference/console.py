"""One-line notices on standard error: each kind said once in a process, or each time where each one counts."""

from __future__ import annotations

import logging
import re
import sys

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
