"""One-line notices on standard error, each said once in a process."""

from __future__ import annotations

import logging
import sys

logger = logging.getLogger("dlvm")
_said: set[str] = set()


def say(line: str) -> None:
    """Logs a line at level INFO under the name ``dlvm``, to standard error unless logging is set up otherwise."""
    if line in _said:
        return
    _said.add(line)
    if not logger.handlers and not logging.getLogger().handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    logger.info(line)
