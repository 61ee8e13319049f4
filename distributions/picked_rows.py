"""Plates whose rows a program picks by itself, with ``subsample=``, so that nobody else may."""

from __future__ import annotations

from typing import Any

from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample


class PickedRows(Messenger):
    """Gathers, in ``names``, the plates that are given their rows inside.

    Example:
        >>> import pyro, torch
        >>> with PickedRows() as picked:
        ...     _ = pyro.plate("data", 9, subsample_size=3), pyro.plate("words", 9, subsample=torch.arange(3))
        >>> picked.names
        {'words'}
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def _pyro_sample(self, msg: Any) -> None:
        if isinstance(msg["fn"], _Subsample) and msg["value"] is not None:
            self.names.add(msg["name"])
