"""A run's folder that no other process may write to, for as long as the run is in use here."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from weakref import WeakKeyDictionary, WeakValueDictionary, finalize

from inference.locked import locked


class _Lock:
    """Let go of with the last object that holds it."""

    def __init__(self, folder: Path):
        held = ExitStack()
        held.enter_context(locked(folder, "a run"))
        finalize(self, held.close)


_of_folder: WeakValueDictionary[Path, _Lock] = WeakValueDictionary()
_of_owner: WeakKeyDictionary[object, _Lock] = WeakKeyDictionary()


def claim(owner: object, folder: Path) -> None:
    """Keeps other processes out of a folder until the owner is gone, so that a script may sweep more than once.

    Args:
        owner: whose end lets go of it; several of one process share the folder.
        folder: that exists.

    Raises:
        BlockingIOError: another process has it, and the message says which.
    """
    place = Path(folder).resolve()
    lock = _of_folder.get(place)
    if lock is None:
        lock = _of_folder[place] = _Lock(place)
    _of_owner[owner] = lock
