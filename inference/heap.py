"""Python's garbage collector kept off what a capture leaves behind: half a million objects that live on."""

from __future__ import annotations

import gc
import weakref

_owners: set[int] = set()


def hold(owner: object) -> None:
    """Takes every object that exists now out of garbage collection, for as long as an owner lives.

    A full collection would otherwise stop a step for some 0.3 s. When the last owner is gone, all are put back, what
    has become garbage in the meantime included. Owners must not be part of a cycle of references: nothing would ever
    free them.
    """
    gc.collect(1)  # a full collection takes as long as the capture itself
    gc.freeze()
    if id(owner) not in _owners:
        _owners.add(id(owner))
        weakref.finalize(owner, _release, id(owner)).atexit = False


def _release(owner: int) -> None:
    _owners.discard(owner)
    if not _owners:
        gc.unfreeze()
